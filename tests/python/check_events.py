#!/usr/bin/env python3
"""Reads the events of a killed and resumed run with TensorBoard, and compares with its metrics.

    make check-events                          or, with tests/python/requirements.txt installed,
    python3 tests/python/check_events.py [--pretrain BINARY]

The tiny model is trained on the bundled proteins, killed without warning some steps after a save,
and resumed, twice. Before the second time, the file names are changed as if the clock had been an
hour ahead. For each scalar that TensorBoard shows, this checks that

  its steps are those of metrics.jsonl, each once and in order;
  its values are those of metrics.jsonl;
  its times never decrease.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data/sample/uniprot_sample.fasta.gz"
EVENTS = "events.out.tfevents."
EVERY, PATIENCE, HOUR = 10, 300, 3600


def check(condition, message):
    if not condition:
        sys.exit(f"check_events: {message}")


def metrics(run):
    """The whole lines of metrics.jsonl."""
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def saved(run):
    return max((int(path.parent.name[5:]) for path in run.glob("checkpoints/step_*/commit.json")), default=0)


def train(pretrain, data, run, steps):
    command = [pretrain, "--config", "tiny", "--data", data, "--run-dir", run, "--resume", "--steps", str(steps)]
    return command + ["--set", "evaluation.every=0", "--set", f"checkpoint.every={EVERY}", "--set", "train.batch_size=64"]


def train_and_kill(pretrain, data, run):
    """Trains until some steps after another save, and kills it."""
    before, patience = saved(run), time.monotonic() + PATIENCE
    process = subprocess.Popen(train(pretrain, data, run, 1_000_000), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while saved(run) == before or metrics(run)[-1]["step"] <= saved(run) + 3:
        check(process.poll() is None, f"the run ended by itself with {process.returncode}")
        check(time.monotonic() < patience, "there is no save, or nothing after it")
        time.sleep(0.001)
    process.kill()
    process.wait()
    return metrics(run)[-1]["step"], saved(run)


def put_the_clock_forward(run):
    """Renames the event files as if they had been started an hour later."""
    for file in run.glob(f"{EVENTS}*"):
        seconds, rest = file.name[len(EVENTS) :].split(".", 1)
        file.rename(file.with_name(f"{EVENTS}{int(seconds) + HOUR}.{rest}"))


def compare(run):
    lines = {line["step"]: line for line in metrics(run)}
    shown = EventAccumulator(str(run), size_guidance={"scalars": 0})
    shown.Reload()
    tags = shown.Tags()["scalars"]
    check("train/loss" in tags and "speed/tokens_per_second" in tags, f"TensorBoard shows {tags}")
    for tag in tags:
        points = shown.Scalars(tag)
        steps = [point.step for point in points]
        check(steps == sorted(lines), f"{tag}: TensorBoard shows the steps {steps}, and the metrics have {sorted(lines)}")
        for point in points:
            expected = np.float32(lines[point.step][tag.split("/")[1]])
            check(point.value == expected, f"{tag}, step {point.step}: {point.value}, and the metrics have {expected}")
        times = [point.wall_time for point in points]
        check(times == sorted(times), f"{tag}: times go back")
    return len(tags), len(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrain", default=ROOT / "target/debug/pretrain", type=Path)
    pretrain = parser.parse_args().pretrain
    with tempfile.TemporaryDirectory() as directory:
        data, run = Path(directory) / "data", Path(directory) / "run"
        subprocess.run([pretrain, "prepare", "--output", data, SAMPLE], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        first = train_and_kill(pretrain, data, run)
        second = train_and_kill(pretrain, data, run)
        put_the_clock_forward(run)
        last = train(pretrain, data, run, second[1] + 5)
        subprocess.run(last, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        tags, steps = compare(run)
    kills = ", ".join(f"killed at {at}, resumed from {before}" for at, before in (first, second))
    print(f"TensorBoard shows {tags} scalars over {steps} steps as the metrics have them ({kills})")


if __name__ == "__main__":
    main()
