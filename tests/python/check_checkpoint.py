#!/usr/bin/env python3
"""Reads checkpoints with Python's zarr and compares them with their commit markers.

    pip install "zarr>=3"
    python3 tests/python/check_checkpoint.py CHECKPOINT...

CHECKPOINT is a directory with commit.json. zarr checks the CRC32C of each chunk while it reads. This
script also checks that exactly the arrays in the marker exist, with their element types and shapes.
"""

import json
import sys
from pathlib import Path

import zarr


def arrays(group, prefix=""):
    """All arrays below a group, by path."""
    found = {prefix + name: array for name, array in group.arrays()}
    for name, child in group.groups():
        found |= arrays(child, f"{prefix}{name}/")
    return found


def check(checkpoint):
    commit = json.loads(Path(checkpoint, "commit.json").read_text())
    found = arrays(zarr.open_group(checkpoint, mode="r"))
    expected = {array["name"]: array for array in commit["arrays"]}
    if found.keys() != expected.keys():
        sys.exit(f"{checkpoint}: missing or unexpected arrays: {sorted(found.keys() ^ expected.keys())}")
    total = 0
    for name, array in found.items():
        values = array[...]
        description = (str(values.dtype), list(values.shape))
        if description != (expected[name]["data_type"], expected[name]["shape"]):
            sys.exit(f"{checkpoint}: {name} is {description}, not as in commit.json")
        total += values.nbytes
    if total != commit["bytes"]:
        sys.exit(f"{checkpoint}: {total} bytes, commit.json says {commit['bytes']}")
    print(f"{checkpoint}: step {commit['step']}, {len(found)} arrays, {total} bytes, read by zarr {zarr.__version__}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for checkpoint in sys.argv[1:]:
        check(checkpoint)
