#!/usr/bin/env python3
"""Makes tests/golden/scores.json: scores of variants by a plain loop over Flax T5.

    make goldens                    or, with tests/python/requirements.txt installed,
    python3 tests/golden/make_scores.py

The model is that of tests/golden/defaults. There are 20 short sequences, each with a variant of one
to three mutations. Of each variant: masked marginals against its sequence, and the mean of
ln p(residue) over its own residues.
"""

import json
import sys
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).resolve().parent
sys.path.insert(0, str(GOLDEN.parent / "python"))

from plain_scores import LETTERS, PlainScores, mutated, random_mutant


def main():
    generator = np.random.default_rng(13)
    plain = PlainScores(GOLDEN / "defaults/hf", compiled=True)
    rows = []
    for number in range(20):
        # Four lengths, so that few programs are compiled.
        length = (7, 18, 31, 40)[number % 4]
        wild_type = "".join(LETTERS[i] for i in generator.integers(0, 20, length))
        mutant = random_mutant(generator, wild_type, 1 + number % 3)
        rows.append({
            "wild_type": wild_type,
            "mutant": mutant,
            "mutated_sequence": mutated(wild_type, mutant),
            "masked_marginals": plain.masked_marginals(wild_type, mutant),
            "mean_log_probability": plain.mean_log_probability(mutated(wild_type, mutant)),
        })
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    (GOLDEN / "scores.json").write_text(f"[\n  {lines}\n]\n")


main()
