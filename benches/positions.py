#!/usr/bin/env python3
"""How well states tell where in its protein a residue is, or how long the protein is.

    pretrain embed --weights DIR --pooling none --output residues.parquet \\
        target/benchmarks/ts50_q3.fasta
    pretrain embed --weights DIR --output means.parquet target/benchmarks/disorder.fasta
    target/python/bin/python benches/positions.py residues.parquet means.parquet

For each file, prints R squared of a ridge regression on every fifth protein, which the regression
has not seen: 1 if it is always right, and 0 if it is no better than the mean. From the states of
residues it tells the number of residues before, and from a protein's mean state its length. Random
weights to compare with are those of a training that changes nothing:

    pretrain --config benches/benchmark_model.toml --data target/benchmarks/prepared \\
        --run-dir random --steps 1 --set schedule.warmup_steps=1 \\
        --set schedule.peak_learning_rate=1e-9
"""

import sys

import numpy
import pyarrow
import pyarrow.parquet
import sklearn.linear_model


def main():
    for path in sys.argv[1:]:
        table = pyarrow.parquet.read_table(path)
        is_mean = pyarrow.types.is_fixed_size_list(table.schema.field("embedding").type)
        rows = table.to_pylist()
        tested = rows[::5]
        learnt = [row for place, row in enumerate(rows) if place % 5]
        told, examples = ("length", of_proteins) if is_mean else ("place", of_residues)
        regression = sklearn.linear_model.RidgeCV(alphas=10.0 ** numpy.arange(-3, 4))
        regression.fit(*examples(learnt))
        known = regression.score(*examples(tested))
        print(f"{path}: {told}, {len(tested)} proteins tested, R squared {known:.3f}")


def of_proteins(rows):
    """Mean states, and lengths."""
    return numpy.array([row["embedding"] for row in rows]), [row["length"] for row in rows]


def of_residues(rows):
    """States, and the number of residues before each."""
    states = [numpy.array(row["embedding"]).reshape(row["length"], -1) for row in rows]
    return numpy.vstack(states), numpy.concatenate([numpy.arange(len(own)) for own in states])


if __name__ == "__main__":
    main()
