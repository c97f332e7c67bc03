#!/usr/bin/env python3
"""The peer: one Ankh training step as a JAX programmer would write it, timed on the CPU.

    make bench                                 or, with tests/python/requirements.txt installed,
    python3 benches/peer_jax.py [--batch 8 --input-length 256 --target-length 128]
                                [--remat full|none] [--steps 12]

Layers are scanned, parameters stacked, everything is float32, and the optimizer is optax.adafactor.
The whole step is jitted with its state donated. Prints one JSON object. `step_seconds_median` is
over all steps but the first two.
"""

import argparse
import functools
import json
import os
import statistics
import time

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import optax

VOCABULARY, BUCKETS, MAX_DISTANCE, EPSILON = 144, 64, 128, 1e-6
D_MODEL, D_FF, HEADS, D_KV, ENCODER_LAYERS, DECODER_LAYERS = 256, 512, 4, 64, 6, 3
LEARNING_RATE = 1e-3


def initial_parameters(key):
    keys = iter(jax.random.split(key, 64))

    def normal(deviation, *shape):
        return deviation * jax.random.normal(next(keys), shape, jnp.float32)

    def attention(layers):
        return {
            "q": normal((D_MODEL * D_KV) ** -0.5, layers, D_MODEL, HEADS, D_KV),
            "k": normal(D_MODEL**-0.5, layers, D_MODEL, HEADS, D_KV),
            "v": normal(D_MODEL**-0.5, layers, D_MODEL, HEADS, D_KV),
            "o": normal((HEADS * D_KV) ** -0.5, layers, HEADS, D_KV, D_MODEL),
            "norm": jnp.ones((layers, D_MODEL)),
        }

    def mlp(layers):
        return {
            "wi_0": normal(D_MODEL**-0.5, layers, D_MODEL, D_FF),
            "wi_1": normal(D_MODEL**-0.5, layers, D_MODEL, D_FF),
            "wo": normal(D_FF**-0.5, layers, D_FF, D_MODEL),
            "norm": jnp.ones((layers, D_MODEL)),
        }

    def stack(layers, names):
        return {
            "layers": {name: attention(layers) for name in names} | {"mlp": mlp(layers)},
            "relative_bias": normal(D_MODEL**-0.5, BUCKETS, HEADS),
            "final_norm": jnp.ones(D_MODEL),
        }

    return {
        "shared": normal(1.0, VOCABULARY, D_MODEL),
        "lm_head": normal(D_MODEL**-0.5, D_MODEL, VOCABULARY),
        "encoder": stack(ENCODER_LAYERS, ["attention"]),
        "decoder": stack(DECODER_LAYERS, ["attention", "cross"]),
    }


def relative_bias(table, length, bidirectional):
    """T5's bias for every pair of positions, [1, heads, query, key]."""
    distance = jnp.arange(length)[None, :] - jnp.arange(length)[:, None]
    buckets, bucket = BUCKETS, 0
    if bidirectional:
        buckets //= 2
        bucket = (distance > 0) * buckets
        distance = jnp.abs(distance)
    else:
        distance = -jnp.minimum(distance, 0)
    exact = buckets // 2
    scale = (buckets - exact) / np.log(MAX_DISTANCE / exact)
    far = exact + (jnp.log(jnp.maximum(distance, 1) / exact) * scale).astype(jnp.int32)
    bucket += jnp.where(distance < exact, distance, jnp.minimum(far, buckets - 1))
    return table[bucket].transpose(2, 0, 1)[None]


def rms_norm(x, weight):
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + EPSILON) * weight


def attend(p, x, memory, bias):
    q = jnp.einsum("bqd,dhk->bhqk", x, p["q"])
    k = jnp.einsum("bsd,dhk->bhsk", memory, p["k"])
    v = jnp.einsum("bsd,dhk->bhsk", memory, p["v"])
    weights = jax.nn.softmax(jnp.einsum("bhqk,bhsk->bhqs", q, k) + bias, -1)
    return jnp.einsum("bhqk,hkd->bqd", jnp.einsum("bhqs,bhsk->bhqk", weights, v), p["o"])


def gated_mlp(p, x):
    x = rms_norm(x, p["norm"])
    return (jax.nn.gelu(x @ p["wi_0"], approximate=True) * (x @ p["wi_1"])) @ p["wo"]


def masked(bias, mask):
    return jnp.where(mask, bias, -1e9)


def loss(parameters, batch, remat):
    checkpoint = {"full": jax.checkpoint, "none": lambda layer: layer}[remat]
    keys = batch["attention_mask"][:, None, None, :] > 0
    length = batch["decoder_input_ids"].shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))

    encoder = parameters["encoder"]
    bias = masked(relative_bias(encoder["relative_bias"], batch["input_ids"].shape[1], True), keys)

    def encoder_layer(x, p):
        h = rms_norm(x, p["attention"]["norm"])
        x = x + attend(p["attention"], h, h, bias)
        return x + gated_mlp(p["mlp"], x), None

    x, _ = jax.lax.scan(checkpoint(encoder_layer), parameters["shared"][batch["input_ids"]], encoder["layers"])
    memory = rms_norm(x, encoder["final_norm"])

    decoder = parameters["decoder"]
    self_bias = masked(relative_bias(decoder["relative_bias"], length, False), causal)
    cross_bias = masked(0.0, keys)

    def decoder_layer(y, p):
        h = rms_norm(y, p["attention"]["norm"])
        y = y + attend(p["attention"], h, h, self_bias)
        y = y + attend(p["cross"], rms_norm(y, p["cross"]["norm"]), memory, cross_bias)
        return y + gated_mlp(p["mlp"], y), None

    y, _ = jax.lax.scan(checkpoint(decoder_layer), parameters["shared"][batch["decoder_input_ids"]], decoder["layers"])
    logits = rms_norm(y, decoder["final_norm"]) @ parameters["lm_head"]
    weights = (batch["labels"] >= 0).astype(jnp.float32)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(batch["labels"], 0))
    return (nll * weights).sum() / weights.sum()


def random_batch(rows, input_length, target_length):
    random = np.random.default_rng(0)
    residues = functools.partial(random.integers, 3, 23, dtype=np.int32)
    labels = residues((rows, target_length))
    batch = {
        "input_ids": residues((rows, input_length)),
        "attention_mask": np.ones((rows, input_length), np.int32),
        "decoder_input_ids": np.concatenate([np.zeros((rows, 1), np.int32), labels[:, :-1]], 1),
        "labels": labels,
    }
    return {name: jnp.asarray(array) for name, array in batch.items()}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--input-length", type=int, default=256)
    arguments.add_argument("--target-length", type=int, default=128)
    arguments.add_argument("--remat", choices=["full", "none"], default="full")
    arguments.add_argument("--steps", type=int, default=12)
    arguments = arguments.parse_args()

    optimizer = optax.adafactor(LEARNING_RATE)

    def step(parameters, state, batch):
        value, gradient = jax.value_and_grad(loss)(parameters, batch, arguments.remat)
        updates, state = optimizer.update(gradient, state, parameters)
        return optax.apply_updates(parameters, updates), state, value

    parameters = initial_parameters(jax.random.key(0))
    state = optimizer.init(parameters)
    batch = random_batch(arguments.batch, arguments.input_length, arguments.target_length)

    began = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(parameters, state, batch).compile()
    compile_seconds = time.perf_counter() - began

    seconds = []
    for _ in range(arguments.steps):
        began = time.perf_counter()
        parameters, state, value = jax.block_until_ready(compiled(parameters, state, batch))
        seconds.append(time.perf_counter() - began)
    result = {
        "step_seconds_median": statistics.median(seconds[2:]),
        "step_seconds_minimum": min(seconds[2:]),
        "compile_seconds": compile_seconds,
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "parameters": sum(array.size for array in jax.tree.leaves(parameters)),
        "loss": float(value),
        "jax": jax.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
