#!/usr/bin/env python3
"""Takes a family of antibodies' heavy chains from the package `ewht`, and one antibody.

    make variants-vh          or
    python3 tests/python/vh_family.py WHEEL SEQUENCES FAMILY WILD_TYPE

The package has 64,708 sequences in 121 columns, the antibody CR6261 first. Most end before the
third loop. FAMILY gets CR6261 and, in equal steps through the others, so many of those that have
residues in 115 columns at least and none that is ambiguous; WILD_TYPE gets CR6261 alone.
"""

import sys
import zipfile

DATA = "ewht/example_data/cr6261.a2m"
LEAST = 115
AMINO_ACIDS = set("ACDEFGHIKLMNPQRSTVWY")


def main():
    wheel, sequences, family, wild_type = sys.argv[1:]
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(DATA).decode()
    records = [record.split("\n", 1) for record in text.split(">")[1:]]
    records = [(header, rows.replace("\n", "")) for header, rows in records]
    assert len(records) == 64_708 and all(len(row) == 121 for _, row in records)
    assert records[0][0].startswith("cr6261")

    def is_whole(row):
        residues = [letter for letter in row if letter not in ".-"]
        return len(residues) >= LEAST and AMINO_ACIDS.issuperset(residues)

    others = [record for record in records[1:] if is_whole(record[1])]
    count = min(int(sequences) - 1, len(others))
    chosen = [others[i * len(others) // count] for i in range(count)]
    for path, kept in [(family, [records[0], *chosen]), (wild_type, records[:1])]:
        with open(path, "w") as file:
            file.writelines(f">{header}\n{row}\n" for header, row in kept)


if __name__ == "__main__":
    main()
