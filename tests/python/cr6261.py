#!/usr/bin/env python3
"""Turns the CR6261 data of the package `ewht` into a table as ProteinGym has them.

    make target/cr6261/variants.csv            or
    python3 tests/python/cr6261.py WHEEL OUTPUT

All 2,048 combinations of eleven mutations of the antibody CR6261's heavy chain, with its affinity to
influenza's haemagglutinin H1 (Phillips et al., 2021): -log10 of the dissociation constant, of which
7.0 is the least. Mutations are joined by `:` here and by `;` there. `DMS_score_bin` is 1 above 7.0.
"""

import csv
import io
import sys
import zipfile

DATA = "ewht/example_data/cr6261_h1_mean.csv"
LEAST = 7.0


def main():
    wheel, output = sys.argv[1:]
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(DATA).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 2048, len(rows)
    with open(output, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["mutant", "mutated_sequence", "DMS_score", "DMS_score_bin"])
        for row in rows:
            label = float(row["fitness"])
            mutant = row["mutant"].replace(";", ":")
            writer.writerow([mutant, row["mutated_sequence"], row["fitness"], int(label > LEAST)])


main()
