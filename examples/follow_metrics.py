"""Follows the metrics of a run while it is written: what the exporters in this directory share.

Needs Python 3.11 or newer, and nothing else.
"""

import json
import time
import tomllib
from pathlib import Path


class Run:
    """A run directory that `pretrain` writes, or has written."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.metrics = self.directory / "metrics.jsonl"
        if not self.metrics.exists():
            raise SystemExit(f"{self.metrics} does not exist: is {directory} a run directory?")
        self.name = self.directory.resolve().name
        # A name that no other run has, also when the directory is moved or copied from a bucket.
        identity = self.directory / ".run"
        self.id = identity.read_text().strip() if identity.exists() else self.name

    def settings(self):
        """The configuration, by dotted keys."""
        file = self.directory / "config.toml"
        found = {}

        def flatten(key, value):
            if isinstance(value, dict):
                for name, inner in value.items():
                    flatten(f"{key}.{name}" if key else name, inner)
            else:
                found[key] = value

        flatten("", tomllib.loads(file.read_text()) if file.exists() else {})
        return found

    def follow(self, sent, once=False, pause=5.0, settled=60.0):
        """Yields the numbers of each logged step after `sent`, in order and each once, as
        `(step, {name: number})`. It ends with the last step of the run, or where `once` is given
        with what there is.

        An evaluation may be added to the last line of the file, after a restart. So a line is
        yielded when another one follows, or when the file has not changed for some time.
        """
        position, inode, held = 0, None, None
        changed = time.monotonic()
        while True:
            status = self.metrics.stat()
            # A run that goes on from an earlier step, or adds an evaluation, replaces the file.
            if status.st_ino != inode or status.st_size < position:
                position, inode, held = 0, status.st_ino, None
            with self.metrics.open("rb") as file:
                file.seek(position)
                for text in file:
                    if not text.endswith(b"\n"):
                        break
                    position += len(text)
                    changed = time.monotonic()
                    line = json.loads(text)
                    if line["step"] <= sent:
                        continue
                    if held is not None and held["step"] > sent:
                        sent = held["step"]
                        yield sent, numbers(held)
                    held = line
            if held is not None and (once or time.monotonic() - changed > settled):
                sent = held["step"]
                yield sent, numbers(held)
                held = None
            if once or sent >= self.settings().get("train.steps", float("inf")):
                return
            time.sleep(pause)


def numbers(line):
    """The numbers of a line that are known, under the names that TensorBoard has for them."""
    known = {name: value for name, value in line.items() if name != "step" and value is not None}
    return {f"{group(name)}/{name.removeprefix('validation_')}": value for name, value in known.items()}


def group(name):
    if name.startswith("validation_"):
        return "validation"
    if name in ("mfu", "goodput") or name.endswith(("_second", "_seconds")):
        return "speed"
    return "train"
