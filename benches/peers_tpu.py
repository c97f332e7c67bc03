#!/usr/bin/env python3
"""One pre-training step of Ankh's shape in JAX, compiled for a TPU slice that need not be here.

    make bench-tpu

`--peer` says how the step is written:

    plain      as a JAX programmer would write it: softmax over float32 scores, every layer
               recomputed in the backward pass, data parallel
    tuned      heads transposed once, the derivative of attention written by hand; the attention's
               output, log-sum, queries, keys and values saved
    kernels    attention by Pallas kernels, forward and backward, with the gradient of the bias
    flax       Hugging Face's FlaxT5ForConditionalGeneration, without its dropout

Prints one JSON object: the compiler's estimate of the cycles of a step, and what its schedules say
of kernels, which it does not estimate.
"""

import argparse
import functools
import json
import os
import pathlib
import re
import tempfile
import time

DUMP = tempfile.mkdtemp(prefix="schedules-")
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["LIBTPU_INIT_ARGS"] = (
    f"--xla_jf_dump_to={DUMP} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=final_bundles"
)

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental import topologies
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from peer_jax import BUCKETS, EPSILON, MAX_DISTANCE, VOCABULARY, relative_bias

D_MODEL, D_FF, HEADS, D_KV = 1536, 3840, 16, 64
TOPOLOGIES = {"v4-8": ("v4:2x2x1", 4), "v4-64": ("v4:2x4x4", 32)}
BF16, F32 = jnp.bfloat16, jnp.float32
BATCH = PartitionSpec("data")


def parameter_shapes(encoder_layers, decoder_layers):
    def attention(layers):
        projection = (layers, D_MODEL, HEADS, D_KV)
        return {"q": projection, "k": projection, "v": projection, "o": (layers, HEADS, D_KV, D_MODEL), "norm": (layers, D_MODEL)}

    def mlp(layers):
        return {"wi_0": (layers, D_MODEL, D_FF), "wi_1": (layers, D_MODEL, D_FF), "wo": (layers, D_FF, D_MODEL), "norm": (layers, D_MODEL)}

    def stack(layers, names):
        blocks = {name: attention(layers) for name in names} | {"mlp": mlp(layers)}
        return {"layers": blocks, "relative_bias": (BUCKETS, HEADS), "final_norm": (D_MODEL,)}

    return {
        "shared": (VOCABULARY, D_MODEL),
        "lm_head": (D_MODEL, VOCABULARY),
        "encoder": stack(encoder_layers, ["attention"]),
        "decoder": stack(decoder_layers, ["attention", "cross"]),
    }


def rms_norm(x, weight):
    mean_square = jnp.mean(jnp.square(x.astype(F32)), -1, keepdims=True)
    return x * jax.lax.rsqrt(mean_square + EPSILON).astype(x.dtype) * weight.astype(x.dtype)


def seen(queries, keys, causal):
    """Which keys each query sees, [batch, query, key]."""
    mask = queries[:, :, None] == keys[:, None, :]
    return mask & jnp.tril(jnp.ones(mask.shape[1:], bool)) if causal else mask


def masked_scores(q, k, bias, mask):
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=F32)
    scores = scores if bias is None else scores + bias
    return jnp.where(mask[:, None], scores, -1e9)


class Plain:
    """softmax(q k' + bias) v, differentiated by JAX."""

    projection, saved = "bqd,dhk->bhqk", None
    back = "bhqk,hkd->bqd"

    @staticmethod
    def attend(q, k, v, bias, queries, keys, causal):
        weights = jax.nn.softmax(masked_scores(q, k, bias, seen(queries, keys, causal)), -1).astype(BF16)
        return jnp.einsum("bhqk,bhkd->bhqd", weights, v)


class Tuned(Plain):
    """The same with a derivative that keeps the output and the logarithms of the sums."""

    saved = ("q", "k", "v", "o", "log_sum")

    @staticmethod
    def attend(q, k, v, bias, queries, keys, causal):
        return tuned(q, k, v, bias, queries, keys, causal)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def tuned(q, k, v, bias, queries, keys, causal):
    return tuned_forward(q, k, v, bias, queries, keys, causal)[0]


def tuned_forward(q, k, v, bias, queries, keys, causal):
    scores = masked_scores(q, k, bias, seen(queries, keys, causal))
    log_sum = checkpoint_name(jax.nn.logsumexp(scores, -1, keepdims=True), "log_sum")
    o = jnp.einsum("bhqk,bhkd->bhqd", jnp.exp(scores - log_sum).astype(BF16), v)
    o = checkpoint_name(o, "o")
    return o, (q, k, v, bias, queries, keys, o, log_sum)


def tuned_backward(causal, saved, do):
    q, k, v, bias, queries, keys, o, log_sum = saved
    weights = jnp.exp(masked_scores(q, k, bias, seen(queries, keys, causal)) - log_sum)
    rows = (do.astype(F32) * o.astype(F32)).sum(-1, keepdims=True)
    dscores = weights * (jnp.einsum("bhqd,bhkd->bhqk", do, v, preferred_element_type=F32) - rows)
    narrow = dscores.astype(BF16)
    dq = jnp.einsum("bhqk,bhkd->bhqd", narrow, k)
    dk = jnp.einsum("bhqk,bhqd->bhkd", narrow, q)
    dv = jnp.einsum("bhqk,bhqd->bhkd", weights.astype(BF16), do)
    return dq, dk, dv, None if bias is None else dscores.sum(0), *no_gradient(queries, keys)


def no_gradient(*integers):
    return tuple(np.zeros(x.shape, jax.dtypes.float0) for x in integers)


tuned.defvjp(tuned_forward, tuned_backward)


class Kernels:
    """Attention by Pallas kernels, a head of a sequence at a place; scores are [key, query]."""

    projection, saved = "bqd,dhk->bhkq", ("q", "k", "v", "o", "log_sum")
    back = "bhkq,hkd->bqd"

    @staticmethod
    def attend(q, k, v, bias, queries, keys, causal):
        bias = None if bias is None else bias.transpose(0, 2, 1)
        return kernel(q, k, v, bias, queries[:, None, :], keys[:, :, None], causal)


def product(x, y, contract):
    return jax.lax.dot_general(x, y, ((contract[:1], contract[1:]), ((), ())), preferred_element_type=F32)


def kernel_scores(q, k, queries, keys, bias, causal):
    scores = product(k[0, 0], q[0, 0], (0, 0))
    for block in bias:
        scores += block[0]
    mask = keys[0] == queries[0]
    if causal:
        iota = functools.partial(jax.lax.broadcasted_iota, jnp.int32, scores.shape)
        mask &= iota(0) <= iota(1)
    return jnp.where(mask, scores, -1e9)


def forward_body(causal, q, k, v, queries, keys, *rest):
    *bias, o, log_sum = rest
    scores = kernel_scores(q, k, queries, keys, bias, causal)
    most = scores.max(0, keepdims=True)
    exp = jnp.exp(scores - most)
    total = exp.sum(0, keepdims=True)
    o[0, 0] = (product(v[0, 0], exp.astype(BF16), (1, 0)) / total).astype(BF16)
    log_sum[0, 0] = most + jnp.log(total)


def backward_body(causal, biased, q, k, v, queries, keys, *rest):
    bias, (o, log_sum, do, dq, dk, dv, *dbias) = rest[:biased], rest[biased:]
    weights = jnp.exp(kernel_scores(q, k, queries, keys, bias, causal) - log_sum[0, 0])
    rows = (do[0, 0].astype(F32) * o[0, 0].astype(F32)).sum(0, keepdims=True)
    dscores = weights * (product(v[0, 0], do[0, 0], (0, 0)) - rows)
    narrow = dscores.astype(BF16)
    dq[0, 0] = product(k[0, 0], narrow, (1, 0)).astype(BF16)
    dk[0, 0] = product(q[0, 0], narrow, (1, 1)).astype(BF16)
    dv[0, 0] = product(do[0, 0], weights.astype(BF16), (1, 1)).astype(BF16)
    for block in dbias:

        @pl.when(pl.program_id(1) == 0)
        def _():
            block[0] = dscores

        @pl.when(pl.program_id(1) > 0)
        def _():
            block[0] += dscores


def call(name, body, q, keys, outputs, operands):
    """A kernel over (head, sequence); `outputs` and `operands` say what each array is."""
    batch, heads, kv, queries = q.shape
    blocks = {
        "query": ((1, 1, kv, queries), (batch, heads, kv, queries), BF16, lambda h, b: (b, h, 0, 0)),
        "key": ((1, 1, kv, keys), (batch, heads, kv, keys), BF16, lambda h, b: (b, h, 0, 0)),
        "sum": ((1, 1, 1, queries), (batch, heads, 1, queries), F32, lambda h, b: (b, h, 0, 0)),
        "bias": ((1, keys, queries), (heads, keys, queries), F32, lambda h, b: (h, 0, 0)),
        "query_segments": ((1, 1, queries), None, None, lambda h, b: (b, 0, 0)),
        "key_segments": ((1, keys, 1), None, None, lambda h, b: (b, 0, 0)),
    }
    spec = lambda what: pl.BlockSpec(blocks[what][0], blocks[what][3])
    return pl.pallas_call(
        body,
        grid=(heads, batch),
        in_specs=[spec(what) for what, _ in operands],
        out_specs=[spec(what) for what in outputs],
        out_shape=[jax.ShapeDtypeStruct(*blocks[what][1:3]) for what in outputs],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        name=name,
    )(*(array for _, array in operands))


def on_shards(function, operands, results):
    """Calls a kernel on each device's sequences; gradients of the bias are summed over them."""

    def body(*arrays):
        found = function(*arrays)
        return tuple(jax.lax.psum(x, "data") if what == "bias" else x for what, x in zip(results, found))

    split = lambda what: PartitionSpec() if what == "bias" else BATCH
    in_specs = tuple(split(what) for what, _ in operands)
    mapped = jax.shard_map(body, mesh=MESH, in_specs=in_specs, out_specs=tuple(map(split, results)), check_vma=False)
    return mapped(*(array for _, array in operands))


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def kernel(q, k, v, bias, queries, keys, causal):
    return kernel_forward(q, k, v, bias, queries, keys, causal)[0]


def kernel_operands(q, k, v, bias, queries, keys):
    operands = [("query", q), ("key", k), ("key", v), ("query_segments", queries), ("key_segments", keys)]
    return operands + ([] if bias is None else [("bias", bias)])


def kernel_forward(q, k, v, bias, queries, keys, causal):
    operands = kernel_operands(q, k, v, bias, queries, keys)
    body = functools.partial(forward_body, causal)
    results = ["query", "sum"]

    def each(*arrays):
        named = [(what, array) for (what, _), array in zip(operands, arrays)]
        return call("attention_forward", body, arrays[0], k.shape[3], results, named)

    o, log_sum = on_shards(each, operands, results)
    o, log_sum = checkpoint_name(o, "o"), checkpoint_name(log_sum, "log_sum")
    return o, (q, k, v, bias, queries, keys, o, log_sum)


def kernel_backward(causal, saved, do):
    q, k, v, bias, queries, keys, o, log_sum = saved
    biased = 0 if bias is None else 1
    operands = kernel_operands(q, k, v, bias, queries, keys) + [("query", o), ("sum", log_sum), ("query", do)]
    body = functools.partial(backward_body, causal, biased)
    results = ["query", "key", "key"] + ["bias"] * biased

    def each(*arrays):
        named = [(what, array) for (what, _), array in zip(operands, arrays)]
        return call("attention_backward", body, arrays[0], k.shape[3], results, named)

    dq, dk, dv, *dbias = on_shards(each, operands, results)
    return dq, dk, dv, dbias[0] if biased else None, *no_gradient(queries, keys)


kernel.defvjp(kernel_forward, kernel_backward)


def attention(way, p, x, memory, bias, queries, keys, causal):
    weight = lambda name: p[name].astype(BF16)
    q = checkpoint_name(jnp.einsum(way.projection, x, weight("q")), "q")
    k = checkpoint_name(jnp.einsum(way.projection, memory, weight("k")), "k")
    v = checkpoint_name(jnp.einsum(way.projection, memory, weight("v")), "v")
    return jnp.einsum(way.back, way.attend(q, k, v, bias, queries, keys, causal), weight("o"))


def gated_mlp(p, x):
    x = rms_norm(x, p["norm"])
    hidden = jax.nn.gelu(x @ p["wi_0"].astype(BF16), approximate=True) * (x @ p["wi_1"].astype(BF16))
    return hidden @ p["wo"].astype(BF16)


def on_batch(x):
    return jax.lax.with_sharding_constraint(x, NamedSharding(MESH, BATCH))


def loss(way, parameters, batch):
    checkpoint = jax.checkpoint
    if way.saved:
        policy = jax.checkpoint_policies.save_only_these_names(*way.saved)
        checkpoint = functools.partial(jax.checkpoint, policy=policy)
    keys, queries = batch["input_segments"], batch["target_segments"]

    encoder = parameters["encoder"]
    bias = relative_bias(encoder["relative_bias"], keys.shape[1], True)[0]

    def encoder_layer(x, p):
        h = rms_norm(x, p["attention"]["norm"])
        x = x + attention(way, p["attention"], h, h, bias, keys, keys, False)
        return on_batch(x + gated_mlp(p["mlp"], x)), None

    x = on_batch(parameters["shared"].astype(BF16)[batch["input_ids"]])
    x, _ = jax.lax.scan(checkpoint(encoder_layer), x, encoder["layers"])
    memory = rms_norm(x, encoder["final_norm"])

    decoder = parameters["decoder"]
    decoder_bias = relative_bias(decoder["relative_bias"], queries.shape[1], False)[0]

    def decoder_layer(y, p):
        h = rms_norm(y, p["attention"]["norm"])
        y = y + attention(way, p["attention"], h, h, decoder_bias, queries, queries, True)
        h = rms_norm(y, p["cross"]["norm"])
        y = y + attention(way, p["cross"], h, memory, None, queries, keys, False)
        return on_batch(y + gated_mlp(p["mlp"], y)), None

    y = on_batch(parameters["shared"].astype(BF16)[batch["decoder_input_ids"]])
    y, _ = jax.lax.scan(checkpoint(decoder_layer), y, decoder["layers"])
    logits = rms_norm(y, decoder["final_norm"]) @ parameters["lm_head"].astype(BF16)
    return cross_entropy(logits, batch["labels"])


def cross_entropy(logits, labels):
    weights = (labels >= 0).astype(F32)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits.astype(F32), jnp.maximum(labels, 0))
    return (nll * weights).sum() / weights.sum()


def flax_model(encoder_layers, decoder_layers):
    """The parameters' shapes and the loss of Hugging Face's model."""
    from transformers import FlaxT5ForConditionalGeneration, T5Config

    # transformers 4.57 passes the bounds of clip under names that this jax no longer knows.
    clip = jnp.clip
    jnp.clip = lambda x, a_min=None, a_max=None, **bounds: clip(x, a_min, a_max, **bounds)

    config = T5Config(
        vocab_size=VOCABULARY, d_model=D_MODEL, d_kv=D_KV, d_ff=D_FF, num_heads=HEADS,
        num_layers=encoder_layers, num_decoder_layers=decoder_layers, relative_attention_num_buckets=BUCKETS,
        relative_attention_max_distance=MAX_DISTANCE, dropout_rate=0.0, feed_forward_proj="gated-gelu",
        tie_word_embeddings=False, decoder_start_token_id=0,
    )
    model = FlaxT5ForConditionalGeneration(config, dtype=BF16, _do_init=False, gradient_checkpointing=True)
    shapes = jax.eval_shape(lambda: model.init_weights(jax.random.key(0), (1, 1)))

    def flax_loss(parameters, batch):
        mask = batch["input_segments"]
        decoder_mask = batch["target_segments"]
        inputs = {"input_ids": batch["input_ids"], "attention_mask": mask}
        decoder = {"decoder_input_ids": batch["decoder_input_ids"], "decoder_attention_mask": decoder_mask}
        return cross_entropy(model(**inputs, **decoder, params=parameters).logits, batch["labels"])

    return shapes, flax_loss


def schedules():
    """The bundles of each scheduled instruction."""
    found = {}
    for path in pathlib.Path(DUMP).glob("*-schedule-analysis_final_bundles.txt"):
        instruction = re.fullmatch(r"\d+-(.*)-\d+-schedule-analysis_final_bundles.txt", path.name)[1]
        total = re.search(r"total scheduled bundles:\s+(\d+)", path.read_text())
        if total:
            found[instruction] = int(total[1])
    return found


def cycles(text):
    """Of a step: the compiler's estimates, and its schedules of kernels.

    Loops count as often as they run.
    """
    computations, name, entry = {}, None, None
    for line in text.splitlines():
        begins = re.match(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line)
        if begins:
            name = begins[2]
            computations[name] = []
            entry = name if begins[1] else entry
        elif line.strip() == "}":
            name = None
        elif name:
            computations[name].append(line)
    written = schedules()
    sums = {"estimated": 0, "kernels": 0}

    def constants(computation):
        for line in computations[computation]:
            yield from map(int, re.findall(r"= [su]32\[\][^ ]* constant\((\d+)\)", line))
            for called in re.findall(r"calls=%?([\w.\-]+)", line):
                yield from constants(called)

    def is_kernel(line):
        if "tpu_custom_call" in line:
            return line
        for called in re.findall(r" fusion\(.*calls=%?([\w.\-]+)", line):
            found = [kernel for inner in computations[called] if (kernel := is_kernel(inner))]
            if found:
                return found[0]
        return None

    def walk(computation, times):
        for line in computations[computation]:
            estimate = re.search(r'"estimated_cycles":"(\d+)"', line)
            loop = re.search(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)", line)
            kernel = is_kernel(line)
            if kernel:
                instruction = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) =", line)[1]
                heads, rows = GRID
                # Two cores of a chip share the heads.
                sums["kernels"] += times * written[instruction] * heads * rows // 2
            elif estimate:
                sums["estimated"] += times * int(estimate[1])
            if loop:
                walk(loop[2], times * max(constants(loop[1]), default=1))
            elif re.search(r" (call|conditional|async-start)\(", line):
                for called in re.findall(r"(?:to_apply|calls|called_computations)=\{?%?([\w.\-]+)", line):
                    walk(called, times)

    walk(entry, 1)
    return sums


def main():
    global MESH, GRID
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--peer", choices=["plain", "tuned", "kernels", "flax"], required=True)
    arguments.add_argument("--slice", choices=TOPOLOGIES, default="v4-8")
    arguments.add_argument("--batch", type=int, default=128)
    arguments.add_argument("--encoder-layers", type=int, default=4)
    arguments.add_argument("--decoder-layers", type=int, default=2)
    arguments.add_argument("--input-length", type=int, default=512)
    arguments.add_argument("--target-length", type=int, default=256)
    arguments = arguments.parse_args()

    name, chips = TOPOLOGIES[arguments.slice]
    topology = topologies.get_topology_desc(
        platform="tpu", topology_name=name, chip_config_name="megacore", chips_per_host_bounds=(2, 2, 1), num_slices=1
    )
    MESH = Mesh(np.array(topology.devices), ("data",))
    GRID = (HEADS, arguments.batch // chips)
    layers = (arguments.encoder_layers, arguments.decoder_layers)
    if arguments.peer == "flax":
        shapes, loss_of = flax_model(*layers)
    else:
        way = {"plain": Plain, "tuned": Tuned, "kernels": Kernels}[arguments.peer]
        is_shape = lambda node: isinstance(node, tuple)
        array = lambda shape: jax.ShapeDtypeStruct(shape, F32)
        shapes = jax.tree.map(array, parameter_shapes(*layers), is_leaf=is_shape)
        loss_of = functools.partial(loss, way)

    optimizer = optax.adafactor(1e-3)

    def step(parameters, state, batch):
        value, gradient = jax.value_and_grad(loss_of)(parameters, batch)
        updates, state = optimizer.update(gradient, state, parameters)
        return optax.apply_updates(parameters, updates), state, value

    def placed(tree, spec):
        sharding = NamedSharding(MESH, spec)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    sizes = {
        "input_ids": arguments.input_length, "input_segments": arguments.input_length,
        "decoder_input_ids": arguments.target_length, "target_segments": arguments.target_length,
        "labels": arguments.target_length,
    }
    rows = {name: jax.ShapeDtypeStruct((arguments.batch, length), jnp.int32) for name, length in sizes.items()}
    parameters = placed(shapes, PartitionSpec())
    state = placed(jax.eval_shape(optimizer.init, shapes), PartitionSpec())
    began = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(parameters, state, placed(rows, BATCH)).compile()
    seconds = time.perf_counter() - began
    found = cycles(compiled.as_text())
    print(json.dumps(vars(arguments) | {
        "cycles": found["estimated"] + found["kernels"],
        "kernel_cycles": found["kernels"],
        "peak_bytes": getattr(compiled.memory_analysis(), "peak_memory_in_bytes", None),
        "compile_seconds": round(seconds, 1),
        "jax": jax.__version__,
    }))


main()
