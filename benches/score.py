#!/usr/bin/env python3
"""Compares scoring variants of one protein with a plain loop in transformers.

    make bench-score                           or, with tests/python/requirements.txt installed,
    python3 benches/score.py TABLE --weights HF_DIR [--pretrain BINARY] [--passes N] [--variants N]

TABLE has the columns `mutant` and `mutated_sequence`, as ProteinGym has them. `pretrain score`
scores all of it by masked marginals, and the first VARIANTS of it by pseudo-likelihood; each is
timed from the command's start to its end. The loop does the same in transformers' Flax T5: one
masked sequence a pass, nothing shared between variants. It runs as it is called, and compiled by
jax.jit. PASSES of it are timed, after one that is not, and the time of all is extrapolated from
their mean: what the loop takes to start and to compile is not counted. Prints a line of JSON for
each method.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/python"))

from plain_scores import PlainScores


def ours(arguments, method):
    """Seconds of the whole command, and what it reports."""
    lines = arguments.table.read_text().splitlines(keepends=True)
    if method == "pseudo-likelihood":
        lines = lines[: arguments.variants + 1]
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "variants.csv"
        table.write_text("".join(lines))
        command = [arguments.pretrain, "score", "--weights", arguments.weights, "--method", method, "--json"]
        began = time.perf_counter()
        done = subprocess.run([*command, "--output", f"{folder}/scores.csv", table], check=True, stdout=subprocess.PIPE)
        return time.perf_counter() - began, json.loads(done.stdout)


def seconds_a_pass(directory, sequence, passes, compiled):
    """Mean seconds of a pass of the loop."""
    plain = PlainScores(directory, compiled=compiled)
    plain.log_probabilities(sequence, 0)
    began = time.perf_counter()
    for number in range(passes):
        plain.log_probabilities(sequence, number % len(sequence))
    return (time.perf_counter() - began) / passes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("table", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--pretrain", type=Path, default=ROOT / "target/debug/pretrain")
    parser.add_argument("--passes", type=int, default=200)
    parser.add_argument("--variants", type=int, default=100)
    arguments = parser.parse_args()
    with open(arguments.table) as file:
        sequence = next(csv.DictReader(file))["mutated_sequence"]
    loop = {
        "as called": seconds_a_pass(arguments.weights, sequence, max(arguments.passes // 10, 3), False),
        "compiled": seconds_a_pass(arguments.weights, sequence, arguments.passes, True),
    }
    for method in ["masked-marginals", "pseudo-likelihood"]:
        seconds, result = ours(arguments, method)
        each_of_ours = seconds / result["passes"]
        line = {"method": method, "variants": result["variants"]}
        line["ours"] = {"passes": result["passes"], "seconds": round(seconds, 1), "seconds_a_pass": each_of_ours}
        for name, each in loop.items():
            passes = result["passes_without_sharing"]
            line[f"loop, {name}"] = {
                "passes": passes,
                "seconds_a_pass": each,
                "seconds_extrapolated": round(each * passes, 1),
                "times_ours": round(each * passes / seconds, 2),
                "times_ours_where_passes_are_shared": round(each / each_of_ours, 2),
            }
        print(json.dumps(line), flush=True)


main()
