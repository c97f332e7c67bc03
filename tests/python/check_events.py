#!/usr/bin/env python3
"""Reads what a killed and resumed run tells TensorBoard and Prometheus, and compares.

    make check-events                          or, with tests/python/watchers.txt installed,
    python3 tests/python/check_events.py [--pretrain BINARY]

The tiny model is trained on the bundled proteins, killed without warning some steps after a save,
and resumed, twice. Before the second time, the file names are changed as if the clock had been an
hour ahead. For each scalar that TensorBoard shows, this checks that

  its steps are those of metrics.jsonl, each once and in order;
  its values are those of metrics.jsonl;
  its times never decrease.

The same goes for the steps and times of histograms and of the configuration. Gradients have as many
elements at each step, and as many tokens are predicted as are expected.

While a run goes on, what it serves is read by Prometheus's own parser of OpenMetrics. The scripts in
examples/ then follow the lines of metrics, as files that grow and are replaced.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data/sample/uniprot_sample.fasta.gz"
EVENTS = "events.out.tfevents."
EVERY, PATIENCE, HOUR, HISTOGRAMS = 10, 300, 3600, 5

sys.path.insert(0, str(ROOT / "examples"))
from follow_metrics import Run  # noqa: E402


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
    settings = {
        "evaluation.every": 0,
        "checkpoint.every": EVERY,
        "train.batch_size": 64,
        "telemetry.histograms_every": HISTOGRAMS,
    }
    command += ["--metrics-listen", "127.0.0.1:0"]
    return command + [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def serves(log):
    """Where a run serves its metrics, by what it has logged."""
    found = re.search(r"metrics for Prometheus are at (http://\S+)", log.read_text())
    return found and found[1]


def train_and_kill(pretrain, data, run, log):
    """Trains until some steps after another save, reads its metrics, and kills it."""
    before, patience = saved(run), time.monotonic() + PATIENCE
    with log.open("w") as errors:
        process = subprocess.Popen(train(pretrain, data, run, 1_000_000), stdout=subprocess.DEVNULL, stderr=errors)
    try:
        while saved(run) == before or metrics(run)[-1]["step"] <= saved(run) + 3:
            check(process.poll() is None, f"the run ended by itself with {process.returncode}")
            check(time.monotonic() < patience, "there is no save, or nothing after it")
            time.sleep(0.001)
        compare_served(serves(log), before, metrics(run))
    finally:
        process.kill()
        process.wait()
    return metrics(run)[-1]["step"], saved(run)


def compare_served(address, before, lines):
    """What Prometheus gets, for a run that was resumed from a step and has written these lines."""
    patience = time.monotonic() + PATIENCE
    text = ""
    # The loop hears of a save that has ended when it saves next.
    while "ankh_checkpoint_step" not in text:
        check(time.monotonic() < patience, "no save is served")
        with urllib.request.urlopen(address) as answer:
            kind, text = answer.headers["Content-Type"], answer.read().decode()
    check(kind.startswith("application/openmetrics-text; version=1.0.0"), f"the type is {kind}")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    value = {sample.name: sample.value for family in families.values() for sample in family.samples}
    labels = {tuple(sample.labels.items())[:2] for family in families.values() for sample in family.samples}
    check(labels == {(("run", "run"), ("host", "0"))}, f"the labels are {labels}")
    step, last = value["ankh_step"], lines[-1]["step"]
    check(last <= step <= last + 1000, f"Prometheus has step {step}, and the metrics had {last}")
    check(value["ankh_steps_total"] == step - before, f"{value['ankh_steps_total']} steps since {before}, at {step}")
    check(value["ankh_checkpoint_step"] <= step, "a step was saved before it was trained")
    check(0 < value["ankh_goodput_ratio"] <= 1, f"the goodput is {value['ankh_goodput_ratio']}")
    check(0 < value["ankh_loss_nats"] < 1000, f"the loss is {value['ankh_loss_nats']}")
    for name, family in families.items():
        check(family.documentation and family.type in ("gauge", "counter"), f"{name} is no gauge or counter")
    return len(families)


def put_the_clock_forward(run):
    """Renames the event files as if they had been started an hour later."""
    for file in run.glob(f"{EVENTS}*"):
        seconds, rest = file.name[len(EVENTS) :].split(".", 1)
        file.rename(file.with_name(f"{EVENTS}{int(seconds) + HOUR}.{rest}"))


def compare(run, starts):
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
    return len(tags), compare_tensors(run, sorted(lines), starts), len(lines)


def compare_tensors(run, steps, starts):
    """Histograms are of every fifth step, and the configuration of each start."""
    # What TensorBoard's dashboards read by; the accumulator for scripts keeps void tensors.
    guidance = {"histograms": 0, "text": 0, "hparams": 0}
    shown = plugin_event_accumulator.EventAccumulator(str(run), tensor_size_guidance=guidance)
    shown.Reload()
    due = [step for step in steps if step % HISTOGRAMS == 0]
    counts = {}
    for tag in shown.Tags()["tensors"]:
        plugin = shown.SummaryMetadata(tag).plugin_data.plugin_name
        if plugin == "scalars":
            continue
        points = shown.Tensors(tag)
        expected = due if plugin == "histograms" else starts
        found = [point.step for point in points]
        check(found == expected, f"{tag}: TensorBoard shows the steps {found}, and there should be {expected}")
        times = [point.wall_time for point in points]
        check(times == sorted(times), f"{tag}: times go back")
        arrays = [tensor_util.make_ndarray(point.tensor_proto) for point in points]
        if plugin == "histograms":
            for array in arrays:
                check((array[:, 0] < array[:, 1]).all() and (array[:, 2] >= 0).all(), f"{tag} has odd buckets")
            counts[tag] = [float(array[:, 2].sum()) for array in arrays]
        elif plugin == "text":
            text = arrays[-1].item().decode()
            check("    d_model = 24\n" in text and "    [optimizer]\n" in text, f"the configuration is {text}")
    gradients = {tag: found for tag, found in counts.items() if tag.startswith("gradients/")}
    check("gradients/encoder.layers.mlp.wo" in gradients, f"TensorBoard shows {sorted(counts)}")
    for tag, found in gradients.items():
        check(found[0] > 0 and len(set(found)) == 1, f"{tag} has {found} elements")
    check(counts["residues/predicted"] == counts["residues/expected"], "other tokens are predicted than expected")
    content = shown.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    settings = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    check(settings["model.d_model"].number_value == 24, "HPARAMS does not have the model")
    return len(counts)


def compare_followed(run, directory):
    """A file that grows, is cut short by a crash, and is replaced by a run that goes back."""
    copy = directory / "copy"
    copy.mkdir()
    file, lines = copy / "metrics.jsonl", metrics(run)
    text = [json.dumps(line) + "\n" for line in lines]
    file.write_text("".join(text[:10]) + text[10][:20])
    follower = Run(copy).follow(0, pause=0.01)
    steps = [next(follower)[0] for _ in range(9)]
    other = file.with_suffix(".new")
    other.write_text("".join(text[:5]) + "".join(text[5:20]))
    other.replace(file)
    (copy / "config.toml").write_text(f"[train]\nsteps = {lines[19]['step']}\n")
    steps += [step for step, _ in Run(copy).follow(steps[-1], once=True)]
    check(steps == [line["step"] for line in lines[:20]], f"the steps {steps} are followed")
    _, numbers = next(Run(copy).follow(0))
    expected = {"train/loss", "train/accuracy", "speed/tokens_per_second", "speed/goodput"}
    check(expected <= set(numbers), f"the names are {sorted(numbers)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrain", default=ROOT / "target/debug/pretrain", type=Path)
    pretrain = parser.parse_args().pretrain
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        data, run, log = directory / "data", directory / "run", directory / "log"
        subprocess.run([pretrain, "prepare", "--output", data, SAMPLE], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        first = train_and_kill(pretrain, data, run, log)
        second = train_and_kill(pretrain, data, run, log)
        put_the_clock_forward(run)
        last = train(pretrain, data, run, second[1] + 5)
        subprocess.run(last, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        tags, histograms, steps = compare(run, [1, first[1] + 1, second[1] + 1])
        compare_followed(run, directory)
    kills = ", ".join(f"killed at {at}, resumed from {before}" for at, before in (first, second))
    print(f"TensorBoard shows {tags} scalars over {steps} steps as the metrics have them, {histograms} histograms, and the configuration of each start ({kills})")
    print("Prometheus's parser reads what was served meanwhile")


if __name__ == "__main__":
    main()
