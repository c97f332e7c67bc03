#!/usr/bin/env python3
"""Loads exported models in transformers and compares them with what they were exported from.

    make check-export                          or, with tests/python/requirements.txt installed,
    python3 tests/python/check_export.py [--pretrain BINARY] [CHECKPOINT...]

Every golden model goes through `import` and `export`. Every CHECKPOINT (or run directory) given goes
through `export` alone. Without any, demo/run is used if it exists. For each exported directory this
checks that

  config.json and model.safetensors are the bytes they were imported from (golden models);
  FlaxT5ForConditionalGeneration has exactly the weights of the file, value by value;
  its logits are those of `pretrain forward` and, for golden models, those expected;
  AutoTokenizer gives Ankh's token ids.
"""

import argparse
import json
import os
import subprocess
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
from transformers import FlaxT5ForConditionalGeneration

from checks import VOCABULARY, check, check_logits, check_tokenizer, random_batch

ROOT = Path(__file__).resolve().parents[2]


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
