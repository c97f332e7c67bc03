"""Scores of variants by a plain loop over transformers' Flax T5: one sequence a pass, nothing shared.

What is compared with `pretrain score`, by its golden values, its check and its benchmark.
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np

# transformers 4.57 passes jnp.clip's bounds under names that this jax no longer knows.
_clip = jnp.clip
jnp.clip = lambda x, a_min=None, a_max=None, **bounds: _clip(x, a_min, a_max, **bounds)

from transformers import FlaxT5ForConditionalGeneration

# Ankh's ids.
LETTERS = "ALGVSREDTIPKFQNYMHWCXBOUZ"
FIRST_RESIDUE, END, MASK = 3, 1, 143
IDS = {letter: FIRST_RESIDUE + place for place, letter in enumerate(LETTERS)}
DECODER = np.array([[0, MASK]], np.int32)


class PlainScores:
    """A model that answers one masked sequence after the other."""

    def __init__(self, directory, compiled=False):
        """`compiled` traces the model once for each length; by default it runs as it is called."""
        self.model = FlaxT5ForConditionalGeneration.from_pretrained(directory, dtype=jnp.float32)
        call = lambda params, ids: self.model(input_ids=ids, decoder_input_ids=DECODER, params=params, train=False).logits
        self.call = jax.jit(call) if compiled else call

    def log_probabilities(self, sequence, position):
        """ln p of every id at a masked position, counted from 0: float32 [vocabulary]."""
        ids = [IDS[letter] for letter in sequence] + [END]
        ids[position] = MASK
        logits = self.call(self.model.params, np.array([ids], np.int32))
        return np.asarray(jax.nn.log_softmax(logits[0, -1]))

    def mean_log_probability(self, sequence):
        """The mean of ln p over residues, each masked in turn."""
        terms = [self.log_probabilities(sequence, place)[IDS[letter]] for place, letter in enumerate(sequence)]
        return float(np.mean(terms, dtype=np.float64))

    def masked_marginals(self, wild_type, mutant):
        """The sum over mutations of ln p(mutant) - ln p(wild type), each masked alone in the wild type."""
        score = 0.0
        for mutation in mutant.split(":"):
            before, position, after = mutation[0], int(mutation[1:-1]) - 1, mutation[-1]
            found = self.log_probabilities(wild_type, position).astype(np.float64)
            score += found[IDS[after]] - found[IDS[before]]
        return float(score)


def mutated(wild_type, mutant):
    """The sequence of a variant."""
    residues = list(wild_type)
    for mutation in mutant.split(":"):
        residues[int(mutation[1:-1]) - 1] = mutation[-1]
    return "".join(residues)


def random_mutant(generator, wild_type, mutations):
    """A variant with so many mutations, at places drawn by a numpy generator."""
    places = sorted(generator.choice(len(wild_type), mutations, replace=False))
    drawn = []
    for place in places:
        others = [letter for letter in LETTERS[:20] if letter != wild_type[place]]
        drawn.append(f"{wild_type[place]}{place + 1}{others[generator.integers(len(others))]}")
    return ":".join(drawn)
