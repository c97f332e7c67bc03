#!/usr/bin/env python3
"""Loads exported models in transformers and compares them with what they were exported from.

    make check-export                          or, with the packages of tests/python/requirements.txt at hand,
    python3 tests/python/check_export.py [--pretrain BINARY] [CHECKPOINT...]

Every golden model goes through `import` and `export`, and so does every CHECKPOINT (or run directory) given, by `export` alone; without any,
demo/run is taken where it exists. Of each exported directory this checks that

  config.json and model.safetensors are the bytes they were imported from (golden models);
  FlaxT5ForConditionalGeneration finds each of its weights in the file, and each weight of the file in itself, value by value;
  its logits are those of `pretrain forward` and, for golden models, those expected;
  AutoTokenizer gives Ankh's token ids.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax.numpy as jnp
import numpy as np

# transformers 4.57 passes jnp.clip's bounds under names that this jax no longer knows.
_clip = jnp.clip
jnp.clip = lambda x, a_min=None, a_max=None, **bounds: _clip(x, a_min, a_max, **bounds)

from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer, FlaxT5ForConditionalGeneration

ROOT = Path(__file__).resolve().parents[2]
RESIDUES = "ALGVSREDTIPKFQNYMHWCXBOUZ"
FIRST_RESIDUE, SENTINELS, VOCABULARY = 3, 116, 144
TOLERANCE = 1e-5


def check(condition, message):
    if not condition:
        sys.exit(f"check_export: {message}")


def check_same_bytes(one, other):
    for name in ["config.json", "model.safetensors"]:
        check((one / name).read_bytes() == (other / name).read_bytes(), f"{other / name} differs from {one / name}")


def check_weights(directory):
    """Loads the directory and compares the two sets of weights, both ways."""
    stored = load_file(directory / "model.safetensors")
    model = FlaxT5ForConditionalGeneration.from_pretrained(directory)
    loaded = {}
    for path, value in flatten_dict(model.params).items():
        value = np.asarray(value)
        loaded[".".join([*path[:-1], "weight"])] = value.T if path[-1] == "kernel" else value
    check(loaded.keys() == stored.keys(), f"{directory}: missing or unexpected: {sorted(loaded.keys() ^ stored.keys())}")
    for name, value in stored.items():
        check(value.shape == loaded[name].shape and np.array_equal(value, loaded[name]), f"{directory}: {name} was loaded with other values")
    return model, len(stored)


def check_logits(what, expected, found):
    error = np.abs(expected - found).max() / np.abs(expected).max()
    check(error <= TOLERANCE, f"{what}: logits differ by {error:.1e} of the largest, more than {TOLERANCE:.0e}")
    return error


def logits(model, batch):
    return np.asarray(
        model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            decoder_input_ids=batch["decoder_input_ids"],
            decoder_attention_mask=np.ones_like(batch["decoder_input_ids"]),
            train=False,
        ).logits
    )


def random_batch():
    generator = np.random.default_rng(0)
    rows, inputs, targets = 3, 48, 24
    batch = {
        "input_ids": generator.integers(FIRST_RESIDUE, VOCABULARY, (rows, inputs)),
        "attention_mask": np.ones((rows, inputs)),
        "decoder_input_ids": generator.integers(FIRST_RESIDUE, VOCABULARY, (rows, targets)),
        "labels": generator.integers(FIRST_RESIDUE, VOCABULARY, (rows, targets)),
    }
    return {name: value.astype(np.int32) for name, value in batch.items()}


def check_tokenizer(directory):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    identifiers = {letter: FIRST_RESIDUE + place for place, letter in enumerate(RESIDUES)}
    identifiers |= {f"<extra_id_{i}>": VOCABULARY - 1 - i for i in range(SENTINELS)}
    identifiers |= {"<pad>": 0, "</s>": 1, "<unk>": 2}
    check(tokenizer.get_vocab() == identifiers, f"{directory}: the tokenizer's vocabulary is another")
    check(len(tokenizer) == VOCABULARY, f"{directory}: the tokenizer has {len(tokenizer)} tokens")
    special = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id)
    check(special == (0, 1, 2, VOCABULARY - 1), f"{directory}: pad, eos, unk and mask are {special}")

    generator = random.Random(0)
    for _ in range(1000):
        names = generator.choices([*RESIDUES, "<extra_id_0>", "<extra_id_115>"], k=generator.randrange(1, 200))
        expected = [identifiers[name] for name in names]
        text = "".join(names)
        check(tokenizer(text).input_ids == [*expected, 1], f"{directory}: other ids for {text}")
        check(tokenizer(names, is_split_into_words=True).input_ids == [*expected, 1], f"{directory}: other ids for {names}")
        check(tokenizer(text, add_special_tokens=False).input_ids == expected, f"{directory}: other ids for {text} alone")
        check(tokenizer.decode(expected) == text, f"{directory}: {text} comes back as {tokenizer.decode(expected)}")
    batch = tokenizer(["MKV", "MJ V*"], padding=True)
    check(batch["input_ids"] == [[19, 14, 6, 1, 0], [19, 2, 6, 2, 1]], f"{directory}: a batch is {batch['input_ids']}")
    check(set(batch) == {"input_ids", "attention_mask"}, f"{directory}: the tokenizer returns {sorted(batch)}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    arguments.add_argument("--pretrain", type=Path, default=target / "debug/pretrain", help="the binary to check")
    arguments.add_argument("--no-forward", action="store_true", help="leave out what needs a plugin")
    arguments.add_argument("checkpoints", nargs="*", type=Path, metavar="CHECKPOINT")
    options = arguments.parse_args()
    checkpoints = options.checkpoints or [path for path in [ROOT / "demo/run"] if path.is_dir()]
    goldens = sorted(ROOT.glob("tests/golden/*/hf"))
    check(goldens, "tests/golden is empty")

    def pretrain(*words):
        subprocess.run([options.pretrain, *words], check=True, stdout=subprocess.DEVNULL)

    def check_forward(name, source, model, batch, directory):
        if options.no_forward:
            return ""
        save_file(batch, directory / "batch.safetensors")
        output = directory / "output.safetensors"
        pretrain("forward", "--weights", source, "--batch", directory / "batch.safetensors", "--output", output)
        error = check_logits(f"{name}, against pretrain forward", logits(model, batch), load_file(output)["logits"])
        return f", logits {error:.1e} from ours"

    with tempfile.TemporaryDirectory() as temporary:
        for number, golden in enumerate(goldens):
            directory = Path(temporary, f"golden{number}")
            directory.mkdir()
            checkpoint, exported = directory / "checkpoint", directory / "hf"
            pretrain("import", "--input", golden, "--output", checkpoint)
            pretrain("export", "--checkpoint", checkpoint, "--output", exported)
            check_same_bytes(golden, exported)
            model, count = check_weights(exported)
            check_tokenizer(exported)
            batch = load_file(golden.parent / "batch.safetensors")
            expected = load_file(golden.parent / "expected.safetensors")["logits"]
            error = check_logits(f"{golden.parent.name}, against the golden file", expected, logits(model, batch))
            ours = check_forward(golden.parent.name, checkpoint, model, batch, directory)
            print(f"{golden.parent.name}: the same bytes, {count} weights loaded, logits {error:.1e} from the golden file{ours}")
        for number, checkpoint in enumerate(checkpoints):
            directory = Path(temporary, f"checkpoint{number}")
            directory.mkdir()
            exported = directory / "hf"
            pretrain("export", "--checkpoint", checkpoint, "--output", exported)
            model, count = check_weights(exported)
            if json.loads((exported / "config.json").read_text())["vocab_size"] == VOCABULARY:
                check_tokenizer(exported)
            ours = check_forward(checkpoint, checkpoint, model, random_batch(), directory)
            print(f"{checkpoint}: {count} weights loaded{ours}")


if __name__ == "__main__":
    main()
