"""Runs to look at: real ones of the tiny model, one of them stopped and resumed, and a long one that
is made up."""

import json
import math
import random
import signal
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data/sample/uniprot_sample.fasta.gz"
STEPS, STOPPED_AFTER, PATIENCE = 300, 110, 600

# A name that would run if the page took it for markup; the first part is a directory.
ATTACK = "</script><img src=x onerror=window.attacked=1>"


def quietly(command, **options):
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)


def train(pretrain, data, run, *settings, resume=False):
    command = [pretrain, "--config", "tiny", "--data", data, "--run-dir", run, "--steps", str(STEPS)]
    for setting in ("train.batch_size=16", "evaluation.every=25", "checkpoint.every=50", *settings):
        command += ["--set", setting]
    return [str(part) for part in command + (["--resume"] if resume else [])]


def lines(run):
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def make(pretrain, directory):
    """Trains two runs below a directory; the second is stopped on the way and resumed."""
    data, steady, resumed = directory / "data", directory / "runs/steady", directory / "runs/resumed"
    quietly([pretrain, "prepare", "--output", data, "--validation-fraction", "0.1", SAMPLE])
    quietly(train(pretrain, data, steady))
    settings = ("optimizer.name=adamw", "schedule.peak_learning_rate=5e-3")
    process = subprocess.Popen(train(pretrain, data, resumed, *settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    patience = time.monotonic() + PATIENCE
    while lines(resumed) < STOPPED_AFTER:
        assert process.poll() is None and time.monotonic() < patience, "the run did not get far enough"
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75, "the run did not stop in order"
    quietly(train(pretrain, data, resumed, *settings, resume=True))
    plan = subprocess.run([pretrain, "plan", "--slice", "cpu-1", "--config", "tiny", "--json"], check=True, capture_output=True)
    (steady / "plan.json").write_bytes(plan.stdout)
    return steady, resumed


def copy_as_attack(run, directory):
    """A copy of a run whose name is an attack."""
    target = directory / ATTACK
    target.mkdir(parents=True)
    for name in ("metrics.jsonl", "config.toml"):
        (target / name).write_bytes((run / name).read_bytes())


def synthesize(path, steps):
    """A run of so many logged steps, with a spike in the middle. Lines are as long as real ones."""
    path.mkdir(parents=True)
    noise = random.Random(1)
    values = [noise.gauss(0, 1) for _ in range(4096)]
    line = (
        '{{"step":{s},"epoch":{e},"residues":{r},"loss":{l:.7f},"accuracy":{a:.8f},"learning_rate":{w:.9f},'
        '"grad_norm":{g:.7f},"padding_efficiency":{p:.16f},"skipped_updates":0,"goodput":0.9712345678901234,'
        '"step_seconds":{t:.17f},"examples_per_second":{x:.13f},"tokens_per_second":{y:.11f},"mfu":{m:.17f},'
        '"data_wait_seconds":0.00012345{v}}}\n'
    )
    with open(path / "metrics.jsonl", "w") as file:
        for step in range(1, steps + 1):
            wobble, other = values[step & 4095], values[(7 * step) & 4095]
            loss = 1.2 + 2.2 * math.exp(-step / (0.12 * steps)) + 0.05 * wobble
            spike = 20 if step == steps // 2 + 137 else 0
            held_out = f',"validation_loss":{loss - 0.05 * wobble + 0.04:.15f},"validation_accuracy":0.5,"validation_perplexity":3.5'
            file.write(line.format(
                s=step, e=step // 200_000, r=step * 401_234, l=loss + spike, a=0.75 - 0.2 * loss, w=0.002 * min(1, step / 1e4, 1.0001 - step / steps),
                g=0.8 + 0.1 * abs(other) + spike, p=0.94 + 0.005 * other, t=0.25 + 0.002 * abs(wobble), x=1024 + 3 * other, y=400_000 + 900 * wobble,
                m=0.42 + 0.002 * other, v=held_out if step % 1000 == 0 else ""))
    (path / "config.toml").write_text(f"[train]\nsteps = {steps}\n\n[versions]\nankh = \"0.1.0\"\n")


def append(run, step, loss):
    """Another line, as training adds it."""
    last = json.loads((run / "metrics.jsonl").read_bytes().splitlines()[-1])
    last.update(step=step, loss=loss)
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(last) + "\n")
