#!/usr/bin/env python3
"""Chooses the sample's sequences out of the FASTA file of Debian's package mmseqs2-examples.

    apt-get download mmseqs2-examples && dpkg-deb -x mmseqs2-examples_*.deb unpacked
    python3 data/sample/make.py unpacked/usr/share/doc/mmseqs2/example-data/DB.fasta.gz

Which sequences are taken depends on their accessions and lengths only, not on chance or on their
order in the file. Needs only Python's standard library.
"""

import gzip
import hashlib
import sys
from pathlib import Path

SEQUENCES = 4800
SHORTEST, LONGEST = 30, 2000
LINE = 60
OUTPUT = Path(__file__).resolve().parent / "uniprot_sample.fasta.gz"


def read_fasta(path):
    """Yields (header, sequence), the header without its `>` and the package's `Split=0`."""
    header, lines = None, []
    with gzip.open(path, "rt") as file:
        for line in file:
            if line.startswith(">"):
                if header is not None:
                    yield header, "".join(lines)
                header, lines = line[1:].strip().removesuffix("Split=0").strip(), []
            else:
                lines.append(line.strip())
    if header is not None:
        yield header, "".join(lines)


def accession(header):
    """`P12345` of `sp|P12345|NAME_SPECIES description`."""
    return header.split("|")[1]


def main():
    entries = {}
    for header, sequence in read_fasta(sys.argv[1]):
        if SHORTEST <= len(sequence) <= LONGEST:
            entries.setdefault(accession(header), (header, sequence))
    chosen = sorted(sorted(entries, key=lambda name: hashlib.sha256(name.encode()).digest())[:SEQUENCES])
    text = []
    for name in chosen:
        header, sequence = entries[name]
        text.append(">" + header + "\n")
        text.extend(sequence[start : start + LINE] + "\n" for start in range(0, len(sequence), LINE))
    with OUTPUT.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0) as packed:
        packed.write("".join(text).encode())
    residues = sum(len(entries[name][1]) for name in chosen)
    print(f"{len(chosen)} sequences, {residues} residues, {OUTPUT.stat().st_size} bytes in {OUTPUT.name}")


main()
