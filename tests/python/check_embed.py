#!/usr/bin/env python3
"""Compares `pretrain embed` with transformers' encoder over sequences of data/sample.

    make check-embed                           or, with tests/python/requirements.txt installed,
    python3 tests/python/check_embed.py [--pretrain BINARY] [--peer flax|torch] [--weights DIR...]
                                        [--sequences 200]

For each directory of weights (without any, two of tests/golden and random ones of the preset
`demo`'s size) the states of every residue and their mean, without </s>, have to be those of the
encoder of FlaxT5EncoderModel, or with `--peer torch` of T5EncoderModel, to 1e-4. Each sequence goes
through the peer alone, so no padding is involved there. The Parquet files are read by pyarrow and
the HDF5 files by h5py, as biotrainer's `load_embeddings` reads them.
"""

import argparse
import gzip
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import h5py
import numpy as np
import pyarrow.parquet as pq

from checks import RESIDUES, FIRST_RESIDUE, check

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4


def sample(count):
    records = []
    with gzip.open(ROOT / "data/sample/uniprot_sample.fasta.gz", "rt") as lines:
        for line in lines:
            if line.startswith(">"):
                if len(records) == count:
                    break
                records.append((line[1:].split()[0], ""))
            else:
                records[-1] = (records[-1][0], records[-1][1] + line.strip())
    return records


def flax_encoder(directory):
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp

    # transformers 4.57 passes jnp.clip's bounds under names that this jax no longer knows.
    clip = jnp.clip
    jnp.clip = lambda x, a_min=None, a_max=None, **bounds: clip(x, a_min, a_max, **bounds)
    from transformers import FlaxT5EncoderModel

    model = FlaxT5EncoderModel.from_pretrained(directory)
    encode = jax.jit(lambda parameters, ids, mask: model(ids, mask, params=parameters, train=False).last_hidden_state)

    def states(ids):
        # One length in 64, so that few programs are compiled. What is padded is masked.
        length = -(-len(ids) // 64) * 64
        padded, mask = np.zeros((2, 1, length), np.int32)
        padded[0, : len(ids)], mask[0, : len(ids)] = ids, 1
        return np.asarray(encode(model.params, padded, mask))[0, : len(ids)]

    return states


def torch_encoder(directory):
    import torch
    from transformers import T5EncoderModel

    model = T5EncoderModel.from_pretrained(directory, dtype=torch.float32).eval()

    def states(ids):
        with torch.inference_mode():
            return model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()

    return states


def compare(name, kind, expected, found):
    """The largest difference. A wrong place of a residue or a sequence is far above the tolerance."""
    check(len(expected) == len(found), f"{name}: {kind}: {len(found)} sequences, of {len(expected)}")
    worst = 0.0
    for number, (one, other) in enumerate(zip(expected, found)):
        check(one.shape == other.shape, f"{name}: {kind}: sequence {number} has {other.shape}, expected {one.shape}")
        worst = max(worst, float(np.abs(one - other).max()))
    check(worst <= TOLERANCE, f"{name}: {kind} differ by {worst:.1e}, more than {TOLERANCE:.0e}")
    return f"{kind} {worst:.1e}"


def check_weights(directory, records, encode, pretrain, temporary):
    name = directory.parent.name if directory.name == "hf" else directory.name
    fasta = temporary / "sample.fasta"
    fasta.write_text("".join(f">{identifier} and more\n{sequence}\n" for identifier, sequence in records))
    identifiers = {letter: FIRST_RESIDUE + place for place, letter in enumerate(RESIDUES)}
    expected = [encode([identifiers[letter] for letter in sequence] + [1])[:-1] for _, sequence in records]
    means = [states.mean(axis=0) for states in expected]

    def embed(output, *words):
        output = temporary / output
        pretrain("embed", "--replace", "--weights", directory, "--output", output, *words, fasta)
        return output

    told = []
    table = pq.read_table(embed("means.parquet"))
    check(table["id"].to_pylist() == [identifier for identifier, _ in records], f"{name}: ids are others")
    check(table["length"].to_pylist() == [len(sequence) for _, sequence in records], f"{name}: lengths are others")
    found = np.stack(table["embedding"].to_numpy(zero_copy_only=False))
    told.append(compare(name, "means", means, found))
    table = pq.read_table(embed("residues.parquet", "--pooling", "none"))
    found = [row.values.to_numpy().reshape(length.as_py(), -1) for row, length in zip(table["embedding"], table["length"])]
    told.append(compare(name, "residues", expected, found))
    for pooling, values in [("mean", means), ("none", expected)]:
        with h5py.File(embed(f"{pooling}.h5", "--pooling", pooling), "r") as file:
            stored = {key: (dataset[()], dataset.attrs["original_id"]) for key, dataset in file.items()}
        hashes = [hashlib.sha256(f"{sequence}_{len(sequence)}".encode()).hexdigest() for _, sequence in records]
        check(set(stored) == set(hashes), f"{name}: datasets have other names")
        found = [stored[key][0] for key in hashes]
        told.append(compare(name, f"HDF5, {pooling}", values, found))
        first = {}
        for key, (identifier, _) in zip(hashes, records):
            first.setdefault(key, identifier)
        check({key: text for key, (_, text) in stored.items()} == first, f"{name}: original_id is another")
    with h5py.File(embed("numbers.h5", "--hdf5-names", "number", "--store", "float16"), "r") as file:
        check(len(file) == len(records), f"{name}: {len(file)} datasets")
        for number, (identifier, _) in enumerate(records):
            dataset = file[str(number)]
            check(dataset.attrs["original_id"] == identifier and dataset.dtype == np.float16, f"{name}: dataset {number}")
            check(np.allclose(dataset[()], means[number], rtol=2**-11, atol=2**-11), f"{name}: float16 values of {identifier}")
    print(f"{name}: {len(records)} sequences; largest differences: {', '.join(told)}", flush=True)


def check_many_datasets(pretrain, weights, temporary):
    """More names than one node of a group holds, and than two levels of nodes do."""
    count = 20_000
    fasta, output = temporary / "many.fasta", temporary / "many.h5"
    with fasta.open("w") as to:
        for number in range(count):
            to.write(f">p{number}\n{RESIDUES[number % 20]}{RESIDUES[number // 20 % 20]}K\n")
    pretrain("embed", "--weights", weights, "--output", output, "--hdf5-names", "number", fasta)
    with h5py.File(output, "r") as file:
        check(len(file) == count, f"{len(file)} of {count} datasets")
        check(sorted(file) == sorted(map(str, range(count))), "datasets have other names")
        for number in range(0, count, 37):
            check(file[str(number)].attrs["original_id"] == f"p{number}", f"dataset {number}")
        check(np.array_equal(file["3"][()], file["403"][()]), "equal sequences differ")
    print(f"{count} datasets in one HDF5 file")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    arguments.add_argument("--pretrain", type=Path, default=target / "debug/pretrain", help="the binary to check")
    arguments.add_argument("--peer", choices=["flax", "torch"], default="flax")
    arguments.add_argument("--sequences", type=int, default=200)
    arguments.add_argument("--weights", type=Path, nargs="*", default=[])
    options = arguments.parse_args()
    records = sample(options.sequences)
    encoder = {"flax": flax_encoder, "torch": torch_encoder}[options.peer]

    def pretrain(*words):
        subprocess.run([options.pretrain, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    with tempfile.TemporaryDirectory() as temporary:
        temporary = Path(temporary)
        weights = options.weights
        if not weights:
            sys.path.append(str(ROOT / "benches"))
            from embed import random_weights

            random_weights(temporary / "random", argparse.Namespace(d_model=256, layers=4))
            weights = [ROOT / "tests/golden/defaults/hf", ROOT / "tests/golden/gated-silu/hf", temporary / "random"]
        for directory in weights:
            check_weights(directory, records, encoder(directory), pretrain, temporary)
        if options.peer == "flax":
            check_many_datasets(pretrain, weights[0], temporary)


if __name__ == "__main__":
    main()
