#!/usr/bin/env python3
"""What weights are worth: every benchmark with data at hand, beside what knows less.

    make benchmarks WEIGHTS=DIR                 or, after `make benchmark-data`,
    python3 benches/benchmarks.py --weights DIR [--seeds 3] [--only ts50,contacts] [--output DIR]

Each task is measured with the weights, with the same encoder at random weights, and with the
residues alone, by `pretrain benchmark`. Prints a table in Markdown. Results that are there already
are kept, so that a broken run goes on.
"""

import argparse
import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# By name: the preset, the file, and how the head is trained. Small sets need more epochs of smaller
# batches than the authors' 5 of 16. One epoch of the large ones is what two cores have time for.
TASKS = {
    "secondary structure, TS50": ("q3", "ts50_q3.fasta", ["--epochs", "30", "--batch", "4"]),
    "contacts, TS50": ("contacts", "ts50_contacts.jsonl", ["--epochs", "20", "--batch", "4"]),
    "binding, CR6261": ("binding", "cr6261.csv", ["--epochs", "20"]),
    "disorder": ("disorder", "disorder.fasta", ["--epochs", "20", "--batch", "8"]),
    "solubility": ("solubility", "solubility.fasta", ["--epochs", "1", "--max-length", "400"]),
    "localisation": ("deeploc", "localisation.fasta", ["--epochs", "1", "--max-length", "400"]),
    "localisation, nearest": ("deeploc", "localisation.fasta", ["--head", "nearest", "--max-length", "400"]),
}
MODELS = {"the weights": [], "random weights": ["--baseline", "random"], "composition": ["--baseline", "composition"]}


def measure(options, name, model):
    """The results of a task."""
    preset, data, settings = TASKS[name]
    words = "".join(letter if letter.isalnum() else "-" for letter in f"{name} {model}")
    output = options.output / f"{words}.json"
    if not output.exists():
        seeds = [] if "nearest" in settings else ["--seeds", str(options.seeds)]
        command = [options.pretrain, "benchmark", preset, "--weights", options.weights]
        command += ["--data", options.data / data, "--output", output, *settings, *seeds, *MODELS[model]]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads(output.read_text())


def cell(figure):
    if figure["interval"] is None:
        return f"{figure['value']:.3f}"
    low, high = figure["interval"]
    return f"{figure['value']:.3f} ({low:.3f} to {high:.3f})"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    arguments.add_argument("--weights", required=True)
    arguments.add_argument("--pretrain", type=Path, default=target / "debug/pretrain")
    arguments.add_argument("--data", type=Path, default=ROOT / "target/benchmarks")
    arguments.add_argument("--output", type=Path, default=ROOT / "target/benchmarks/results")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--only", default="", help="words that the names of tasks have, with commas")
    options = arguments.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    print("| task | proteins tested | figure | " + " | ".join(MODELS) + " |")
    print("|---|---|---|" + "---|" * len(MODELS))
    wanted = options.only.split(",")
    for name in TASKS:
        if not any(word in name for word in wanted):
            continue
        found = [measure(options, name, model)["tests"] for model in MODELS]
        for test in found[0]:
            for place, figure in enumerate(found[0][test]["figures"]):
                cells = [cell(results[test]["figures"][place]) for results in found]
                row = [name, f"{found[0][test]['examples']:,}", figure["measure"], *cells]
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
