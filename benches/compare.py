#!/usr/bin/env python3
"""Times our training step and the JAX peer's in turn, and prints the ratio.

    make bench

Each round runs both programs, one after the other, in alternating order. Each runs in a fresh
process that compiles the same model and reports the median of its steps. So a slow phase of the
machine affects both. The ratio is the peer's seconds over ours: above 1, ours is faster. Results go
to stdout as one JSON object a line.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


# What the forward pass saves for the backward pass, in ours and in the peer: nothing, everything,
# and what is fastest for each.
REMATS = {"full": ("full", "full"), "none": ("none", "none"), "quickest": ("none", "full")}


def ours(arguments, remat):
    """The command that times our step: the same model, batch, optimizer and remat as the peer's."""
    settings = {
        "data.input_length": arguments.input_length,
        "data.target_length": arguments.target_length,
        "train.batch_size": arguments.batch,
        "train.compute": "float32",
        "train.remat": remat,
    }
    command = ["cargo", "run", "--quiet", "--example", "step_time", "--", "small", str(arguments.steps)]
    for key, value in settings.items():
        command.append(f"{key}={value}")
    return command


def peer(arguments, remat):
    sizes = ["--batch", arguments.batch, "--input-length", arguments.input_length, "--target-length", arguments.target_length]
    return [sys.executable, HERE / "peer_jax.py", *map(str, sizes), "--remat", remat, "--steps", str(arguments.steps)]


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed with exit code {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(arguments, remat):
    commands = {"ours": ours(arguments, REMATS[remat][0]), "peer": peer(arguments, REMATS[remat][1])}
    ratios = []
    for number in range(arguments.rounds):
        order = list(commands) if number % 2 == 0 else list(reversed(commands))
        results = {name: run(commands[name]) for name in order}
        seconds = {name: results[name]["step_seconds_median"] for name in commands}
        ratios.append(seconds["peer"] / seconds["ours"])
        row = {"remat": remat, "round": number + 1, "ratio": round(ratios[-1], 3)}
        for name in commands:
            row[f"{name}_step_seconds"] = round(seconds[name], 4)
            row[f"{name}_parameters"] = results[name].get("parameters")
        if row["ours_parameters"] not in (None, row["peer_parameters"]):
            sys.exit(f"the two models differ: {row}")
        print(json.dumps(row), flush=True)
    summary = {"remat": remat, "rounds": arguments.rounds, "ratio_median": round(statistics.median(ratios), 3)}
    print(json.dumps(summary | {"ratio_lowest": round(min(ratios), 3), "ratio_highest": round(max(ratios), 3)}), flush=True)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--steps", type=int, default=12)
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--input-length", type=int, default=256)
    arguments.add_argument("--target-length", type=int, default=128)
    arguments.add_argument("--remat", nargs="+", choices=REMATS, default=list(REMATS))
    arguments = arguments.parse_args()
    for remat in arguments.remat:
        compare(arguments, remat)


main()
