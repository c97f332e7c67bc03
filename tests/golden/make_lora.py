#!/usr/bin/env python3
"""Makes tests/golden/lora.safetensors: Flax's T5 encoder with adapters, and their derivatives by JAX.

    make goldens                               or, with tests/python/requirements.txt installed,
    python3 tests/golden/make_lora.py

The encoder is that of tests/golden/gated-silu, on two rows of different lengths. In each layer the
queries' and the values' weights are W + SCALE * A B, which is what an adapter without dropout
computes. A and B are random. The file has them, the encoder's states and, of the sum of the states
of tokens times random numbers, the gradients of all A and B. They are stacked over the layers.
"""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np

# transformers 4.57 passes jnp.clip's bounds under names that this jax no longer knows.
_clip = jnp.clip
jnp.clip = lambda x, a_min=None, a_max=None, **bounds: _clip(x, a_min, a_max, **bounds)

from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file
from transformers import FlaxT5ForConditionalGeneration, T5Config

FOLDER = Path(__file__).resolve().parent
CASE = FOLDER / "gated-silu/hf"
OUTPUT = FOLDER / "lora.safetensors"
RANK = 3
SCALE = 2.5
LENGTHS = [11, 6]


def flax_weights(model):
    """The case's weights, as Flax has them: linear layers transposed."""
    stored = load_file(CASE / "model.safetensors")
    flat = {}
    for path in flatten_dict(model.params):
        weight = stored[".".join([*path[:-1], "weight"])]
        flat[path] = jnp.asarray(weight.T if path[-1] == "kernel" else weight)
    return flat


def main():
    random = np.random.default_rng(26)
    config = T5Config.from_pretrained(CASE)
    model = FlaxT5ForConditionalGeneration(config, dtype=jnp.float32)
    frozen = flax_weights(model)
    inner = config.num_heads * config.d_kv
    normal = lambda *shape: random.standard_normal(shape).astype(np.float32)
    adapters = {}
    for name in "qv":
        adapters[f"{name}.lora_a"] = 0.2 * normal(config.num_layers, config.d_model, RANK)
        adapters[f"{name}.lora_b"] = 0.2 * normal(config.num_layers, RANK, inner)
    rows, length = len(LENGTHS), max(LENGTHS)
    ids = random.integers(3, 25, (rows, length)).astype(np.int32)
    mask = np.zeros((rows, length), np.int32)
    for row, tokens in enumerate(LENGTHS):
        mask[row, :tokens] = 1
        ids[row, tokens - 1] = 1
        ids[row, tokens:] = 0
    cotangent = normal(rows, length, config.d_model)

    def states(adapters):
        weights = dict(frozen)
        for layer in range(config.num_layers):
            for name in "qv":
                path = ("encoder", "block", str(layer), "layer", "0", "SelfAttention", name, "kernel")
                product = adapters[f"{name}.lora_a"][layer] @ adapters[f"{name}.lora_b"][layer]
                weights[path] = weights[path] + SCALE * product
        output = model.encode(ids, mask, params=unflatten_dict(weights))
        return output.last_hidden_state * mask[..., None]

    def loss(adapters):
        return (states(adapters) * cotangent).sum()

    with jax.default_matmul_precision("highest"):
        found = states(adapters)
        gradients = jax.grad(loss)(adapters)
    arrays = adapters | {f"gradient of {name}": gradient for name, gradient in gradients.items()}
    arrays |= {"input_ids": ids, "attention_mask": mask, "cotangent": cotangent, "states": found}
    arrays["scale"] = np.float32(SCALE)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, OUTPUT)
    print(f"{OUTPUT.name}: {OUTPUT.stat().st_size} bytes")


main()
