#!/usr/bin/env python3
"""Makes the golden files: small models as computed by Flax T5 and optax's Adafactor.

    make goldens                               or, with tests/python/requirements.txt installed,
    python3 tests/golden/make.py [--output DIR] [CASE...]

For each case of CASES, a folder receives

  hf/config.json, hf/model.safetensors   the weights, float32, under Hugging Face's PyTorch names
  batch.safetensors      int32 input_ids [B, S], attention_mask [B, S], decoder_input_ids [B, T],
                         labels [B, T] (-100 is ignored)
  expected.safetensors   logits [B, T, V], encoder [B, S, D], loss [], grad.<name> for every weight,
                         losses [steps], and after<steps>.<name>: the weights after that many
                         Adafactor steps on the same batch

and relative_buckets.json receives the buckets of T5's relative attention. On one machine the bytes
are the same every time; another processor may round the last bits differently.
"""

import argparse
import dataclasses
import json
import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np

# transformers 4.57 passes jnp.clip's bounds under names that this jax no longer knows.
_clip = jnp.clip
jnp.clip = lambda x, a_min=None, a_max=None, **bounds: _clip(x, a_min, a_max, **bounds)

import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file
from transformers import FlaxT5ForConditionalGeneration, T5Config
from transformers.models.t5.modeling_flax_t5 import FlaxT5Attention

VOCABULARY = 144
STEPS = 5
LEARNING_RATE = 4e-3
IGNORED = -100


@dataclasses.dataclass(frozen=True)
class Case:
    """One small model and the shape of its batch. Each differs from the first in one respect."""

    d_model: int = 64
    d_ff: int = 128
    heads: int = 4
    d_kv: int = 16
    encoder_layers: int = 3
    decoder_layers: int = 2
    activation: str = "gated-gelu"
    tied: bool = False
    batch: int = 3
    input_length: int = 48
    target_length: int = 24
    seed: int = 0


CASES = {
    "defaults": Case(),
    # heads x d_kv = 64 is not d_model, as in ankh-large.
    "inner-width": Case(d_model=48, d_ff=96, encoder_layers=2, decoder_layers=2, seed=1),
    # ankh2 and ankh3.
    "gated-silu": Case(d_model=32, d_ff=64, heads=2, encoder_layers=2, decoder_layers=2, activation="gated-silu", seed=2),
    # The paper's experiments with ReLU and with tied embeddings, which T5 scales before the logits.
    "relu-tied": Case(d_model=32, d_ff=64, heads=2, encoder_layers=2, decoder_layers=2, activation="relu", tied=True, seed=4),
    # Wide enough for Adafactor to keep row and column statistics, and longer than the buckets'
    # maximal distance.
    "factored": Case(
        d_model=128, d_ff=256, d_kv=32, encoder_layers=2, decoder_layers=1, batch=2, input_length=160, target_length=72, seed=3
    ),
}

# (buckets, maximal distance): Ankh's, then those of the paper's other experiments.
BUCKETS = [(64, 128), (32, 256), (32, 64), (64, 64), (128, 256)]
FARTHEST = 600


def configuration(case):
    return T5Config(
        vocab_size=VOCABULARY,
        d_model=case.d_model,
        d_kv=case.d_kv,
        d_ff=case.d_ff,
        num_layers=case.encoder_layers,
        num_decoder_layers=case.decoder_layers,
        num_heads=case.heads,
        relative_attention_num_buckets=64,
        relative_attention_max_distance=128,
        dropout_rate=0.0,
        feed_forward_proj=case.activation,
        tie_word_embeddings=case.tied,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )


def pytorch_names(tree):
    """A Flax tree as Hugging Face's PyTorch weights: dotted names, linear layers transposed."""
    weights = {}
    for path, value in flatten_dict(tree).items():
        value = np.asarray(value, np.float32)
        name = ".".join([*path[:-1], "weight"])
        weights[name] = np.ascontiguousarray(value.T if path[-1] == "kernel" else value)
    return weights


def initial_weights(model, random):
    """Flax's own initialisation, with the norms moved off 1 so that a forgotten one shows."""
    flat = flatten_dict(model.params)
    for path in sorted(flat):
        if "layer_norm" in path[-2]:
            flat[path] = jnp.asarray(1.0 + 0.1 * random.standard_normal(flat[path].shape), jnp.float32)
    return unflatten_dict(flat)


def random_batch(case, random):
    """Random tokens. The first row is full. Each further row ends (with `</s>`) a little earlier,
    in the input and in the target."""
    B, S, T = case.batch, case.input_length, case.target_length
    inputs = random.integers(3, VOCABULARY, (B, S)).astype(np.int32)
    labels = random.integers(3, VOCABULARY, (B, T)).astype(np.int32)
    mask = np.ones((B, S), np.int32)
    for row in range(B):
        source, target = S - 5 * row, T - 3 * row
        inputs[row, source - 1] = labels[row, target - 1] = 1
        inputs[row, source:] = mask[row, source:] = 0
        labels[row, target:] = IGNORED
    shifted = np.where(labels == IGNORED, 0, labels)[:, :-1]
    return {
        "input_ids": inputs,
        "attention_mask": mask,
        "decoder_input_ids": np.concatenate([np.zeros((B, 1), np.int32), shifted], axis=1),
        "labels": labels,
    }


def expectations(model, weights, batch):
    labels = batch["labels"]
    weight = (labels != IGNORED).astype(np.float32)

    def loss(params):
        outputs = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            decoder_input_ids=batch["decoder_input_ids"],
            decoder_attention_mask=np.ones_like(labels),
            params=params,
            train=False,
        )
        nll = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, np.maximum(labels, 0))
        return (nll * weight).sum() / weight.sum(), outputs

    value_and_gradient = jax.value_and_grad(loss, has_aux=True)
    (value, outputs), gradient = value_and_gradient(weights)
    expected = {
        "logits": np.asarray(outputs.logits),
        "encoder": np.asarray(outputs.encoder_last_hidden_state),
        "loss": np.asarray(value),
    }
    expected |= {f"grad.{name}": array for name, array in pytorch_names(gradient).items()}

    optimizer = optax.adafactor(learning_rate=LEARNING_RATE)

    @jax.jit
    def step(params, state):
        (value, _), gradient = value_and_gradient(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    params, state, losses = weights, optimizer.init(weights), []
    for _ in range(STEPS):
        params, state, value = step(params, state)
        losses.append(float(value))
    expected["losses"] = np.asarray(losses, np.float32)
    return expected | {f"after{STEPS}.{name}": array for name, array in pytorch_names(params).items()}


def make_case(case, folder):
    config = configuration(case)
    random = np.random.default_rng(case.seed)
    model = FlaxT5ForConditionalGeneration(config, seed=case.seed, dtype=jnp.float32)
    weights = initial_weights(model, random)
    batch = random_batch(case, random)
    expected = expectations(model, weights, batch)

    (folder / "hf").mkdir(parents=True, exist_ok=True)
    described = config.to_dict() | {"architectures": ["T5ForConditionalGeneration"]}
    (folder / "hf/config.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
    save_file(pytorch_names(weights), folder / "hf/model.safetensors", metadata={"format": "pt"})
    save_file(batch, folder / "batch.safetensors")
    save_file(expected, folder / "expected.safetensors")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder.name:12} loss {expected['loss']:.5f}, after {STEPS} steps {expected['losses'][-1]:.5f}, {size / 1e6:.1f} MB")


def make_buckets(path):
    """The bucket of each distance (key position - query position), as transformers computes it."""
    distances = np.arange(-FARTHEST, FARTHEST + 1, dtype=np.int32)
    tables = []
    for buckets, maximum in BUCKETS:
        table = {"buckets": buckets, "max_distance": maximum}
        for name, bidirectional in (("encoder", True), ("decoder", False)):
            found = FlaxT5Attention._relative_position_bucket(distances, bidirectional, buckets, maximum)
            table[name] = np.asarray(found).tolist()
        tables.append(table)
    lines = ",\n  ".join(json.dumps(table) for table in tables)
    path.write_text(f'{{"first_distance": {-FARTHEST}, "tables": [\n  {lines}\n]}}\n')


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("cases", nargs="*", metavar="CASE", help=f"any of {', '.join(CASES)}; all of them when none is named")
    arguments.add_argument("--output", type=Path, default=Path(__file__).resolve().parent)
    arguments = arguments.parse_args()
    for name in arguments.cases or CASES:
        make_case(CASES[name], arguments.output / name)
    make_buckets(arguments.output / "relative_buckets.json")


main()
