#!/usr/bin/env python3
"""How well residues' states tell where in its protein a residue is.

    pretrain embed --weights DIR --pooling none --output states.parquet proteins.fasta
    target/python/bin/python benches/positions.py states.parquet...

For each file, prints R squared of a ridge regression from states to the number of residues before,
on every fifth protein, which the regression has not seen: 1 if it is always right, and 0 if it is
no better than the mean. Random weights to compare with are those of a training that changes
nothing:

    pretrain --config benches/benchmark_model.toml --data target/benchmarks/prepared \\
        --run-dir random --steps 1 --set schedule.warmup_steps=1 \\
        --set schedule.peak_learning_rate=1e-9
"""

import sys

import numpy
import pyarrow.parquet
import sklearn.linear_model


def main():
    for path in sys.argv[1:]:
        rows = pyarrow.parquet.read_table(path).to_pylist()
        states = [numpy.array(row["embedding"]).reshape(row["length"], -1) for row in rows]
        tested = states[::5]
        learnt = [own for place, own in enumerate(states) if place % 5]
        regression = sklearn.linear_model.RidgeCV(alphas=10.0 ** numpy.arange(-3, 4))
        regression.fit(numpy.vstack(learnt), before(learnt))
        known = regression.score(numpy.vstack(tested), before(tested))
        print(f"{path}: {len(tested)} proteins tested, R squared {known:.3f}")


def before(proteins):
    """The number of residues before each."""
    return numpy.concatenate([numpy.arange(len(own)) for own in proteins])


if __name__ == "__main__":
    main()
