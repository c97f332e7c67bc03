#!/usr/bin/env python3
"""How much the two residues beside a residue tell of it, in nats.

    python3 benches/neighbours.py FILE...

For each FASTA file (gaps of an alignment are left out), prints the entropy of a residue and that of
a residue whose two neighbours are known. Both are of the counts, so that in a small file the second
is too low.
"""

import collections
import math
import sys


def main():
    for path in sys.argv[1:]:
        with open(path) as file:
            records = [record.partition("\n")[2] for record in file.read().split(">")[1:]]
        sequences = ["".join(filter(str.isalpha, rows)).upper() for rows in records]
        alone = entropy(collections.Counter("".join(sequences)))
        triples, pairs = collections.Counter(), collections.Counter()
        for sequence in sequences:
            for left, residue, right in zip(sequence, sequence[1:], sequence[2:]):
                triples[left, residue, right] += 1
                pairs[left, right] += 1
        known = entropy(triples) - entropy(pairs)
        print(f"{path}: {len(sequences):,} sequences, {alone:.3f} nats, {known:.3f} with both neighbours")


def entropy(counts):
    total = sum(counts.values())
    return -sum(count / total * math.log(count / total) for count in counts.values())


if __name__ == "__main__":
    main()
