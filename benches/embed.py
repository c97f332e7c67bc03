#!/usr/bin/env python3
"""Times `pretrain embed` next to transformers' T5 encoder, in Flax and in PyTorch, on this CPU.

    make bench-embed                           or, with tests/python/requirements.txt installed,
    python3 benches/embed.py [--rounds 3] [--sequences 200] [--layers 6] [--d-model 256]
                             [--torch target/torch/bin/python]

All embed the first sequences of data/sample with the same random weights, in float32: the mean over
residues of each. In each round every program runs once, in a fresh process, in alternating order.
The peers are the loop that users write, made fair:

  flax, sorted   the longest first, batches of `--batch-tokens` tokens, padded to the longest of the
                 batch, rounded up to a multiple of 64, so that few lengths are compiled; jitted
  flax, in order the same model in the order of the file, 8 sequences a batch, padded to the longest
                 of the batch, rounded up to a multiple of 256
  torch, sorted  batches as those of flax, sorted, not rounded up, under inference_mode

Prints one JSON object per round and a summary. `whole` is the time of a process from its start to
its end, compiling included. `warm` is that of all batches once every length was compiled; ours has
the compiling of its program in it, about half a second.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESIDUES = {letter: 3 + place for place, letter in enumerate("ALGVSREDTIPKFQNYMHWCXBOUZ")}


def read_fasta(path):
    sequences = []
    for line in path.read_text().splitlines():
        if line.startswith(">"):
            sequences.append("")
        else:
            sequences[-1] += line.strip()
    return sequences


def batches(sequences, tokens, multiple):
    """Of indices, the longest sequences first, and the length each is padded to."""
    order = sorted(range(len(sequences)), key=lambda i: (-len(sequences[i]), i))
    while order:
        length = -(-(len(sequences[order[0]]) + 1) // multiple) * multiple
        rows = max(tokens // length, 1)
        yield order[:rows], length, rows
        order = order[rows:]


def in_order(sequences):
    for start in range(0, len(sequences), 8):
        chosen = list(range(start, min(start + 8, len(sequences))))
        longest = max(len(sequences[i]) for i in chosen)
        yield chosen, -(-(longest + 1) // 256) * 256, 8


def arrays(sequences, chosen, length, rows):
    import numpy as np

    ids = np.zeros((rows, length), np.int32)
    mask = np.zeros((rows, length), np.int32)
    mask[:, 0] = 1
    for row, sequence in enumerate(chosen):
        coded = [RESIDUES.get(letter, RESIDUES["X"]) for letter in sequences[sequence]] + [1]
        ids[row, : len(coded)] = coded
        mask[row, : len(coded)] = 1
    return ids, mask


def flax_encoder(weights):
    """A jitted mean over residues."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp

    clip = jnp.clip
    jnp.clip = lambda x, a_min=None, a_max=None, **bounds: clip(x, a_min, a_max, **bounds)
    from transformers import FlaxT5EncoderModel

    model = FlaxT5EncoderModel.from_pretrained(weights)

    @jax.jit
    def encode(parameters, ids, mask):
        states = model(input_ids=ids, attention_mask=mask, params=parameters, train=False).last_hidden_state
        residues = (mask * (ids != 1))[:, :, None]
        return (states * residues).sum(1) / jnp.maximum(residues.sum(1), 1)

    parameters = jax.device_put(model.params)
    return lambda ids, mask: encode(parameters, ids, mask)


def torch_encoder(weights):
    import torch
    from transformers import T5EncoderModel

    model = T5EncoderModel.from_pretrained(weights, dtype=torch.float32).eval()

    def encode(ids, mask):
        with torch.inference_mode():
            ids, mask = torch.from_numpy(ids), torch.from_numpy(mask)
            states = model(input_ids=ids.long(), attention_mask=mask).last_hidden_state
            residues = (mask * (ids != 1))[:, :, None]
            return ((states * residues).sum(1) / residues.sum(1).clamp(min=1)).numpy()

    return encode


def peer(name, weights, fasta, tokens, output):
    import numpy as np

    sequences = read_fasta(Path(fasta))
    library, order = name.split(", ")
    encode = torch_encoder(weights) if library == "torch" else flax_encoder(weights)
    multiple = 1 if library == "torch" else 64
    work = list(in_order(sequences) if order == "in order" else batches(sequences, tokens, multiple))
    seconds, cpu = [], []
    # The first pass compiles; PyTorch has nothing to compile, and needs one pass alone.
    for _ in range(1 if library == "torch" else 2):
        start, cpu_start = time.perf_counter(), time.process_time()
        means = [None] * len(sequences)
        for chosen, length, rows in work:
            found = np.asarray(encode(*arrays(sequences, chosen, length, rows)))
            for row, sequence in enumerate(chosen):
                means[sequence] = found[row]
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
    if output:
        np.save(output, np.stack(means))
    positions = sum(length * rows for _, length, rows in work)
    lengths = len({(length, rows) for _, length, rows in work})
    print(json.dumps({"first": seconds[0], "warm": seconds[-1], "warm_cpu": cpu[-1], "positions": positions, "shapes": lengths}))


def random_weights(directory, options):
    """A directory as transformers saves it, with numbers drawn as T5 draws them."""
    import numpy as np
    from safetensors.numpy import save_file

    generator = np.random.default_rng(0)
    d, ff, heads, kv = options.d_model, 4 * options.d_model if options.d_model > 256 else 512, options.d_model // 64, 64

    def normal(deviation, *shape):
        return generator.standard_normal(shape, dtype=np.float32) * np.float32(deviation)

    weights = {"shared.weight": normal(1, 144, d), "lm_head.weight": normal(1, 144, d)}
    for stack, layers in [("encoder", options.layers), ("decoder", 1)]:
        for layer in range(layers):
            kinds = ["SelfAttention"] + ["EncDecAttention"] * (stack == "decoder") + ["DenseReluDense"]
            for place, kind in enumerate(kinds):
                prefix = f"{stack}.block.{layer}.layer.{place}"
                weights[f"{prefix}.layer_norm.weight"] = np.ones(d, np.float32)
                if kind == "DenseReluDense":
                    weights[f"{prefix}.{kind}.wi_0.weight"] = normal(d**-0.5, ff, d)
                    weights[f"{prefix}.{kind}.wi_1.weight"] = normal(d**-0.5, ff, d)
                    weights[f"{prefix}.{kind}.wo.weight"] = normal(ff**-0.5, d, ff)
                else:
                    weights[f"{prefix}.{kind}.q.weight"] = normal((d * kv) ** -0.5, heads * kv, d)
                    weights[f"{prefix}.{kind}.k.weight"] = normal(d**-0.5, heads * kv, d)
                    weights[f"{prefix}.{kind}.v.weight"] = normal(d**-0.5, heads * kv, d)
                    weights[f"{prefix}.{kind}.o.weight"] = normal((heads * kv) ** -0.5, d, heads * kv)
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        weights[bias] = normal(d**-0.5, 64, heads)
        weights[f"{stack}.final_layer_norm.weight"] = np.ones(d, np.float32)
    config = {
        "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "vocab_size": 144, "d_model": d, "d_ff": ff,
        "d_kv": kv, "num_heads": heads, "num_layers": options.layers, "num_decoder_layers": 1,
        "relative_attention_num_buckets": 64, "relative_attention_max_distance": 128, "dropout_rate": 0.0,
        "layer_norm_epsilon": 1e-6, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
        "is_encoder_decoder": True, "use_cache": True, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
    }
    directory.mkdir()
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config))


def write_sample(path, count):
    import gzip

    with gzip.open(ROOT / "data/sample/uniprot_sample.fasta.gz", "rt") as sample, path.open("w") as fasta:
        for line in sample:
            count -= line.startswith(">")
            if count < 0:
                break
            fasta.write(line)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    arguments.add_argument("--pretrain", type=Path, default=target / "debug/pretrain")
    arguments.add_argument("--torch", type=Path, help="a Python that has PyTorch and transformers")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--sequences", type=int, default=200)
    arguments.add_argument("--layers", type=int, default=6)
    arguments.add_argument("--d-model", type=int, default=256)
    arguments.add_argument("--batch-tokens", type=int, default=2048)
    arguments.add_argument("--peer", help=argparse.SUPPRESS)
    arguments.add_argument("--weights", help=argparse.SUPPRESS)
    arguments.add_argument("--fasta", help=argparse.SUPPRESS)
    arguments.add_argument("--means", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.peer:
        return peer(options.peer, options.weights, options.fasta, options.batch_tokens, options.means)

    with tempfile.TemporaryDirectory() as temporary:
        temporary = Path(temporary)
        weights, fasta = temporary / "weights", temporary / "sample.fasta"
        random_weights(weights, options)
        write_sample(fasta, options.sequences)

        def ours():
            words = [options.pretrain, "embed", "--json", "--replace", "--weights", weights, "--output", temporary / "ours.parquet", fasta]
            done = subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            return {"warm": json.loads(done.stdout)["seconds"]}

        def theirs(name, python):
            words = [python, __file__, "--peer", name, "--weights", weights, "--fasta", fasta]
            words += ["--batch-tokens", str(options.batch_tokens)]
            done = subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            return json.loads(done.stdout)

        programs = {"ours": ours}
        for name in ["flax, sorted", "flax, in order"]:
            programs[name] = lambda name=name: theirs(name, sys.executable)
        if options.torch:
            programs["torch, sorted"] = lambda: theirs("torch, sorted", options.torch)
        rounds = []
        for number in range(options.rounds):
            names = list(programs) if number % 2 == 0 else list(reversed(programs))
            found = {}
            for name in names:
                start = time.perf_counter()
                found[name] = programs[name]()
                whole = time.perf_counter() - start
                # The JAX programs ran all batches twice, once to compile.
                found[name]["whole"] = whole - (found[name]["warm"] if "flax" in name else 0)
            rounds.append(found)
            print(json.dumps({name: {k: round(v, 2) for k, v in times.items()} for name, times in found.items()}), flush=True)
        for name in [name for name in programs if name != "ours"]:
            for kind in ["warm", "whole"]:
                ratios = [found[name][kind] / found["ours"][kind] for found in rounds]
                print(f"{name}, {kind}: {statistics.median(ratios):.2f} times ours ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
