#!/usr/bin/env python3
"""Compares `pretrain score` with a plain loop in transformers, on real proteins.

    make check-score                           or, with tests/python/requirements.txt installed,
    python3 tests/python/check_score.py [--pretrain BINARY] [--weights HF_DIR] [--sequences N]

Takes N proteins of data/sample (20), from 40 to 130 residues long, and of each two variants of one
to three mutations. Both methods' scores must differ by at most 1e-5 of the largest. Without
--weights the model is demo/run if it was trained, else tests/golden/defaults.
"""

import argparse
import csv
import gzip
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from checks import TOLERANCE, check
from plain_scores import PlainScores, mutated, random_mutant

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data/sample/uniprot_sample.fasta.gz"


def proteins(number):
    """The first proteins of the sample that are neither short nor long, of the twenty amino acids."""
    found = []
    for record in gzip.open(SAMPLE, "rt").read().split(">")[1:]:
        sequence = "".join(record.splitlines()[1:])
        if 40 <= len(sequence) <= 130 and set(sequence) <= set("ACDEFGHIKLMNPQRSTVWY"):
            found.append(sequence)
    check(len(found) >= number, f"{SAMPLE} has {len(found)} such proteins, of {number}")
    return found[:number]


def weights(arguments, folder):
    """The given weights, else those of the demo, else of a golden model."""
    if arguments.weights:
        return arguments.weights
    if not (ROOT / "demo/run").exists():
        return ROOT / "tests/golden/defaults/hf"
    exported = folder / "hf"
    command = [arguments.pretrain, "export", "--checkpoint", ROOT / "demo/run", "--output", exported]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return exported


def scores(arguments, directory, folder, method, columns):
    """What `pretrain score` gives for folder/variants.csv."""
    output = folder / f"{method}.csv"
    command = [arguments.pretrain, "score", "--weights", directory, "--method", method, "--output", output]
    subprocess.run([*command, folder / "variants.csv"], check=True, stdout=subprocess.DEVNULL)
    with open(output) as file:
        rows = list(csv.DictReader(file))
    return {column: np.array([float(row[column]) for row in rows]) for column in columns}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pretrain", type=Path, default=ROOT / "target/debug/pretrain")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--sequences", type=int, default=20)
    arguments = parser.parse_args()
    generator = np.random.default_rng(1)
    rows = []
    for number, sequence in enumerate(proteins(arguments.sequences)):
        mutants = [random_mutant(generator, sequence, 1 + (number + variant) % 3) for variant in range(2)]
        rows += [(mutant, mutated(sequence, mutant), sequence) for mutant in mutants]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        with open(folder / "variants.csv", "w", newline="") as file:
            csv.writer(file).writerows([("mutant", "mutated_sequence", "target_seq"), *rows])
        directory = weights(arguments, folder)
        marginals = scores(arguments, directory, folder, "masked-marginals", ["masked_marginals"])["masked_marginals"]
        likelihood = scores(arguments, directory, folder, "pseudo-likelihood", ["mean_log_probability", "pseudo_likelihood"])
        plain = PlainScores(directory, compiled=True)
        expected = {
            "masked marginals": (marginals, [plain.masked_marginals(wild, mutant) for mutant, _, wild in rows]),
            "mean ln p": (likelihood["mean_log_probability"], [plain.mean_log_probability(variant) for _, variant, _ in rows]),
        }
        expected["pseudo-likelihood"] = (likelihood["pseudo_likelihood"], np.exp(expected["mean ln p"][1]))
    for name, (found, wanted) in expected.items():
        error = np.abs(found - wanted).max() / np.abs(wanted).max()
        check(error <= TOLERANCE, f"{name} differ by {error:.1e} of the largest, more than {TOLERANCE:.0e}")
        print(f"{name}: {len(rows)} variants of {arguments.sequences} proteins differ by at most {error:.1e} of the largest")


main()
