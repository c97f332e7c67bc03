#!/usr/bin/env python3
"""Makes tests/golden/directories: directories as the installed transformers writes them.

    make goldens                               under transformers 4.57, then 5; or,
                                               with tests/python/torch.txt installed,
    python3 tests/golden/make_directories.py [--output DIR]

The two versions interpret `tie_word_embeddings` differently, and write different files next to the
weights. Each case of CASES that the installed version can write becomes a folder VERSION-CASE with

  hf/                      what save_pretrained wrote
  expected.safetensors     float32 logits [B, T, V] and loss [] of that directory, loaded again by
                           the version that wrote it, for the one batch in batch.safetensors (int32
                           input_ids and attention_mask [B, S], decoder_input_ids and labels [B, T]);
                           run_loss [], for the batch in run_batch.json

run_batch.json is the first batch of a training run, as `pretrain batches --json` prints it:
`WRITE_GOLDENS=1 cargo test --test integration -- continuing::first` writes it.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5ForConditionalGeneration

VOCABULARY = 144
VERSION = transformers.__version__.split(".")[0]
SHAPE = {
    "vocab_size": VOCABULARY,
    "d_model": 8,
    "d_kv": 3,
    "d_ff": 12,
    "num_layers": 2,
    "num_decoder_layers": 1,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "dropout_rate": 0.0,
    "feed_forward_proj": "gated-gelu",
    "decoder_start_token_id": 0,
}


def model(**said):
    """A model with our own random weights: norms other than 1, logits of about 1, scaled or not."""
    made = T5ForConditionalGeneration(T5Config(**SHAPE | said))
    random = np.random.default_rng(0)
    with torch.no_grad():
        for name, parameter in sorted(made.named_parameters()):
            values = 0.5 * random.standard_normal(tuple(parameter.shape)) + (1.0 if "layer_norm" in name else 0.0)
            parameter.copy_(torch.tensor(values, dtype=torch.float32))
    return made


def of_version_4(output, **said):
    """The untied model of version 4, with `said` in its config.json.

    Version 5 ties every model that it makes. This is how to get an untied head there."""
    with tempfile.TemporaryDirectory() as directory:
        shutil.copytree(output / "4-untied/hf", directory, dirs_exist_ok=True)
        config = Path(directory, "config.json")
        config.write_text(json.dumps(json.loads(config.read_text()) | said))
        return T5ForConditionalGeneration.from_pretrained(directory)


def untied(output):
    """T5 v1.1 and Ankh."""
    return model(tie_word_embeddings=False) if VERSION == "4" else of_version_4(output)


def untied_scaled(output):
    return of_version_4(output, tie_word_embeddings=True)


def tied(output):
    return model(tie_word_embeddings=True)


def tied_unscaled(output):
    """What version 5 makes of the settings of T5 v1.1."""
    return model(tie_word_embeddings=False)


def untied_parts(output):
    """bfloat16, in several files with an index."""
    return untied(output).to(torch.bfloat16)


def untied_half(output):
    """float16."""
    return untied(output).to(torch.float16)


def untied_padded(output):
    """An embedding table with more rows than the tokenizer has ids."""
    return model(tie_word_embeddings=False, vocab_size=VOCABULARY + 16)


CASES = {
    "4": {
        "untied": untied,
        "tied": tied,
        "untied-parts": untied_parts,
        "untied-bin": untied,
        "untied-bin-parts": untied_half,
        "tied-bin": tied,
        "untied-copies": untied,
        "untied-padded": untied_padded,
    },
    "5": {
        "untied": untied,
        "tied": tied,
        "untied-parts": untied_parts,
        "untied-scaled": untied_scaled,
        "tied-unscaled": tied_unscaled,
    },
}


def make_batch():
    random = np.random.default_rng(0)
    inputs = random.integers(3, VOCABULARY, (2, 10))
    mask = np.ones_like(inputs)
    inputs[1, 7:] = mask[1, 7:] = 0
    labels = random.integers(3, VOCABULARY, (2, 5))
    shifted = np.concatenate([np.zeros((2, 1), np.int64), labels[:, :-1]], axis=1)
    batch = {"input_ids": inputs, "attention_mask": mask, "decoder_input_ids": shifted, "labels": labels}
    return {name: torch.tensor(value, dtype=torch.int32) for name, value in batch.items()}


ARRAYS = ["input_ids", "attention_mask", "decoder_input_ids", "labels"]


def read_run_batch(file):
    """The arrays of the first batch of a training run."""
    printed = json.loads(file.read_text())
    return {name: torch.tensor(printed[name], dtype=torch.int32) for name in ARRAYS}


def expected(directory, batch, run_batch):
    """What the installed version computes from a directory, in float32."""
    loaded = T5ForConditionalGeneration.from_pretrained(directory, dtype=torch.float32).eval()

    def compute(batch):
        with torch.no_grad():
            return loaded(**{name: value.long() for name, value in batch.items()})

    computed = compute(batch)
    return {
        "logits": computed.logits.contiguous(),
        "loss": computed.loss,
        "run_loss": compute(run_batch).loss,
    }


def add_copies(directory):
    """Stores the embedding table under the names of its copies too, as older versions did."""
    file = directory / "model.safetensors"
    tensors = load_file(file)
    for stack in ("encoder", "decoder"):
        tensors[f"{stack}.embed_tokens.weight"] = tensors["shared.weight"].clone()
    save_file(tensors, file, metadata={"format": "pt"})


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "directories")
    output = arguments.parse_args().output
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    output.mkdir(parents=True, exist_ok=True)
    batch = make_batch()
    save_file(batch, output / "batch.safetensors")
    run_batch = read_run_batch(output / "run_batch.json")
    for name, make in CASES[VERSION].items():
        folder = output / f"{VERSION}-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "hf").mkdir(parents=True)
        said = {"max_shard_size": "4KB" if name.endswith("parts") else "5GB"}
        if "bin" in name:
            said["safe_serialization"] = False
        make(output).save_pretrained(folder / "hf", **said)
        if "copies" in name:
            add_copies(folder / "hf")
        save_file(expected(folder / "hf", batch, run_batch), folder / "expected.safetensors")
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{folder.name:16} transformers {transformers.__version__}, {size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
