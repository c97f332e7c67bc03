#!/usr/bin/env python3
"""Moves models between pretrain and both versions of transformers, and compares logits.

    make check-export                          or, with tests/python/torch.txt installed,
    python3 tests/python/check_directories.py [--pretrain BINARY] --transformers4 DIR

DIR holds the packages of transformers 4.57; version 5 is installed. The models are the directories
that the two versions wrote (tests/golden/directories), and a few that pretrain initializes itself,
tied in each way. For each model this checks that

  `pretrain forward` computes its writer's logits, from the directory and from the checkpoint that
      it is imported to;
  the exported directory loads in both versions, with no weight missing or left over, and with the
      same logits;
  AutoTokenizer of both versions gives Ankh's token ids from it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.numpy import load_file, save_file

from checks import check, check_logits, check_tokenizer, random_batch

ROOT = Path(__file__).resolve().parents[2]
TIES = ["false", "true", "unscaled"]


def load(root):
    """Loads every directory below `root` in the installed transformers, and compares logits."""
    import torch
    import transformers
    from transformers import T5ForConditionalGeneration

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        directory = folder / "exported"
        loaded = T5ForConditionalGeneration.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
        model, information = loaded[0].eval(), loaded[1]
        for what in ["missing_keys", "unexpected_keys", "mismatched_keys"]:
            check(not information[what], f"{folder.name}: {what} {information[what]}")
        batch = {name: torch.tensor(value).long() for name, value in load_file(folder / "batch.safetensors").items()}
        del batch["labels"]
        with torch.no_grad():
            found = model(**batch).logits.numpy()
        what = f"{folder.name}, in transformers {transformers.__version__}"
        error = check_logits(what, load_file(folder / "expected.safetensors")["logits"], found)
        check_tokenizer(directory)
        print(f"{what}: all weights loaded, logits {error:.1e} from the expected")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    arguments.add_argument("--pretrain", type=Path, default=target / "debug/pretrain", help="the binary to check")
    arguments.add_argument("--transformers4", type=Path, help="where the packages of transformers 4.57 are")
    arguments.add_argument("--load", type=Path, help="only load the directories below this one")
    options = arguments.parse_args()
    if options.load:
        return load(options.load)

    def pretrain(*words):
        run = subprocess.run([options.pretrain, *words], capture_output=True, text=True)
        check(run.returncode == 0, f"{' '.join(map(str, words))}: {run.stderr}")

    def forward(weights, folder):
        output = folder / "output.safetensors"
        settings = ["--set", "train.compute=float32"]
        pretrain("forward", "--weights", weights, "--batch", folder / "batch.safetensors", "--output", output, *settings)
        return load_file(output)["logits"]

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary, "models")
        goldens = sorted(ROOT.glob("tests/golden/directories/*/hf"))
        check(goldens, "tests/golden/directories is empty")
        batch = load_file(ROOT / "tests/golden/directories/batch.safetensors")
        for golden in goldens:
            folder = root / golden.parent.name
            folder.mkdir(parents=True)
            save_file(batch, folder / "batch.safetensors")
            expected = load_file(golden.parent / "expected.safetensors")
            save_file(expected, folder / "expected.safetensors")
            pretrain("import", "--input", golden, "--output", folder / "checkpoint")
            pretrain("export", "--checkpoint", folder / "checkpoint", "--output", folder / "exported")
            errors = [
                check_logits(f"{golden.parent.name}, its {what}", expected["logits"], forward(weights, folder))
                for what, weights in [("directory", golden), ("checkpoint", folder / "checkpoint")]
            ]
            print(f"{golden.parent.name}: pretrain's logits {max(errors):.1e} from its writer's")

        data = Path(temporary, "data")
        pretrain("prepare", "--output", data, "--validation-fraction", "0.05", ROOT / "data/sample/uniprot_sample.fasta.gz")
        for tie in TIES:
            folder = root / f"ours-{tie}"
            folder.mkdir()
            run = folder / "run"
            settings = [f"model.tie_embeddings={tie}", "train.steps=2", "evaluation.every=0"]
            pretrain("--config", "tiny", "--data", data, "--run-dir", run, *(f"--set={setting}" for setting in settings))
            pretrain("export", "--checkpoint", run, "--output", folder / "exported")
            save_file(random_batch(), folder / "batch.safetensors")
            save_file({"logits": forward(run, folder)}, folder / "expected.safetensors")

        for packages in [options.transformers4, None]:
            environment = dict(os.environ)
            if packages:
                environment["PYTHONPATH"] = str(packages)
            subprocess.run([sys.executable, __file__, "--load", root], check=True, env=environment)


if __name__ == "__main__":
    main()
