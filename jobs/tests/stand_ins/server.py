"""Runs a stand-in for whoever asks, so that not each call starts an interpreter: there are thousands.

    server.py STAND_IN.py        prints its port on loopback, and ends when its standard input does

A caller sends, each ended by a zero byte: its parent's process, its directory, what it reads, the
number of its variables, these as NAME=VALUE, and its arguments. It is given the exit code and the
lengths of what the stand-in printed on standard output and error, and these.
"""

import atexit
import io
import os
import select
import signal
import socket
import sys
import traceback
from pathlib import Path

# What the stand-ins use is loaded once.
import fnmatch, json, re, shutil, time  # noqa: E401, F401


def serve(connection, code):
    """In a process of its own: becomes the stand-in of one caller."""
    request = b""
    while not request.endswith(b"\0\0"):
        request += connection.recv(1 << 16)
    parent, directory, stdin, count, *words = request[:-2].decode().split("\0")
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.BytesIO()) for _ in range(2))
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(word.split("=", 1) for word in words[: int(count)])
    os.getppid = lambda: int(parent)
    sys.argv = ["stand-in", *words[int(count) :]]
    ended = 0
    try:
        exec(code, {"__name__": "__main__"})
    except SystemExit as end:
        ended = end.code or 0
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        ended = 70
    atexit._run_exitfuncs()
    printed = []
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        printed.append(stream.buffer.getvalue())
    lengths = " ".join(str(len(text)) for text in printed)
    connection.sendall(f"{ended} {lengths}\n".encode() + b"".join(printed))


def main():
    code = compile(Path(sys.argv[1]).read_text(), sys.argv[1], "exec")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(server.getsockname()[1], flush=True)
    while True:
        ready, _, _ = select.select([server, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = server.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            server.close()
            try:
                serve(connection, code)
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            os._exit(0)
        connection.close()


main()
