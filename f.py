r="ALGVSREDTIPKFQNYMHWC"
for i in range(64):
    print(f">protein{i}"); print("".join(r[(7*i+3*j+j*j)%20] for j in range(20+i%30)))
