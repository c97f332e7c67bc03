#!/usr/bin/env python3
"""Makes tests/golden/measures.json: random labels and predictions, and what scikit-learn and SciPy
find of them.

    make goldens                               or, in an environment with both,
    python3 tests/golden/make_measures.py

For each kind of benchmark: the labels, the predictions, and each measure by its name.
"""

import json
from pathlib import Path

import numpy
import scipy.stats
import sklearn.metrics

OUTPUT = Path(__file__).resolve().parent / "measures.json"
SEPARATION = 6
RANDOM = numpy.random.default_rng(7)


def residues():
    """Three classes; a residue in eight has no label (-1)."""
    labels = [RANDOM.integers(0, 3, length) for length in (30, 12, 45)]
    found = [numpy.where(RANDOM.random(len(own)) < 0.6, own, RANDOM.integers(0, 3, len(own))) for own in labels]
    labels = [numpy.where(RANDOM.random(len(own)) < 0.125, -1, own) for own in labels]
    flat, flat_found = numpy.concatenate(labels), numpy.concatenate(found)
    known = flat >= 0
    accuracy = sklearn.metrics.accuracy_score(flat[known], flat_found[known])
    return dict(labels=lists(labels), predictions=lists(found), measures=dict(accuracy=accuracy))


def classes():
    """Two classes and their scores, some of which are equal."""
    labels = RANDOM.integers(0, 2, 40)
    scores = numpy.round(RANDOM.normal(size=40) + labels, 1)
    found = (scores > 0).astype(int)
    return dict(
        labels=labels.tolist(), predictions=found.tolist(), scores=scores.tolist(),
        measures={
            "accuracy": sklearn.metrics.accuracy_score(labels, found),
            "MCC": sklearn.metrics.matthews_corrcoef(labels, found),
            "AUC": sklearn.metrics.roc_auc_score(labels, scores),
        },
    )


def values():
    """Numbers, some of which are equal."""
    labels = numpy.round(RANDOM.normal(size=40), 1)
    found = numpy.round(labels + RANDOM.normal(size=40), 1)
    spearman = scipy.stats.spearmanr(labels, found).statistic
    return dict(labels=labels.tolist(), predictions=found.tolist(), measures={"Spearman": spearman})


def contacts():
    """Pairs that touch, and all that may, the likeliest first, of as many as residues."""
    proteins, precisions = [], {"precision at L": [], "precision at L/5": []}
    for length in (24, 17):
        upper = [(i, j) for i in range(length) for j in range(i + SEPARATION, length)]
        touches = RANDOM.random(len(upper)) < 0.2
        scores = RANDOM.normal(size=len(upper)) + touches
        likeliest = numpy.argsort(-scores)[:length]
        for name, count in (("precision at L", length), ("precision at L/5", length // 5)):
            found = numpy.isin(numpy.arange(len(upper)), likeliest[:count])
            precisions[name].append(sklearn.metrics.precision_score(touches, found))
        proteins.append(dict(
            residues=length,
            labels=[pair for pair, is_contact in zip(upper, touches) if is_contact],
            predictions=[upper[i] for i in likeliest],
        ))
    return dict(proteins=proteins, measures={name: numpy.mean(of) for name, of in precisions.items()})


def lists(arrays):
    return [array.tolist() for array in arrays]


def main():
    golden = dict(residues=residues(), classes=classes(), values=values(), contacts=contacts())
    OUTPUT.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
