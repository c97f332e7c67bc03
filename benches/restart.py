"""Kills a run of a billion parameters after its first local save, starts it again, and says when
the state was there and when the next step was done, from the start of the process.

The programs are compiled by the first start and loaded by the second. The step itself is the CPU's:
on a TPU it takes a second.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

SETTINGS = {
    "model.encoder_layers": 24,
    "model.decoder_layers": 12,
    "train.batch_size": 1,
    "train.log_every": 1,
    "data.input_length": 16,
    "data.target_length": 16,
    "data.threads": 1,
    "evaluation.every": 0,
    "checkpoint.every": 1000000,
}


def lines_of(command, environment):
    """The lines that a run prints, with the seconds since its start. It is killed at the end."""
    began = time.monotonic()
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    run = subprocess.Popen(command, env=environment, **pipe)
    try:
        for line in run.stdout:
            yield time.monotonic() - began, line.rstrip()
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pretrain", type=pathlib.Path)
    parser.add_argument("sequences", type=pathlib.Path)
    parser.add_argument("place", type=pathlib.Path, help="an empty directory for the run")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    shutil.rmtree(options.place, ignore_errors=True)
    options.place.mkdir(parents=True)
    place = {name: str(options.place / name) for name in ("data", "run", "programs")}
    environment = {**os.environ, "ANKH_COMPILATION_CACHE": place["programs"]}
    pretrain = str(options.pretrain.absolute())
    prepare = [pretrain, "prepare", "--output", place["data"], str(options.sequences)]
    subprocess.run(prepare, check=True, stdout=subprocess.DEVNULL)
    train = [pretrain, "--resume", "--config", "ankh-large", "--steps", "100000"]
    train += ["--data", place["data"], "--run-dir", place["run"]]
    memory = "/dev/shm/ankh-bench-restart"
    settings = {**SETTINGS, "checkpoint.local_directory": memory, "checkpoint.local_minutes": 0.1}
    train += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]

    shutil.rmtree(memory, ignore_errors=True)
    try:
        for _, line in lines_of(train, environment):
            if "is saved locally" in line:
                break
        # What is kept stays as it is.
        again = train + ["--set", "checkpoint.local_minutes=60"]
        for _ in range(options.rounds):
            times = {}
            for seconds, line in lines_of(again, environment):
                if "loaded what was compiled before" in line:
                    times["programs_loaded"] = round(seconds, 2)
                elif found := re.search(r"read (\d+) MiB", line):
                    times["state_bytes"] = int(found[1]) << 20
                    times["state_loaded"] = round(seconds, 2)
                elif line.startswith("step "):
                    times["next_step_done"] = round(seconds, 2)
                    break
            print(json.dumps(times), flush=True)
    finally:
        shutil.rmtree(memory, ignore_errors=True)
        shutil.rmtree(options.place, ignore_errors=True)


if __name__ == "__main__":
    main()
