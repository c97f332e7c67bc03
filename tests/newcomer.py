#!/usr/bin/env python3
"""Does what docs/first-hour.md says, as someone new would: `make newcomer`.

The commands of the page are run in order, in one shell that ends at the first error, and begin in
this checkout. What they install and fetch goes to a temporary directory. Blocks with a mark
(```sh tpu) need what this machine does not have, and are left out.

Four things differ from the page, so that this takes a minute: the demo trains fewer steps, the
binary is the one that the tests use (the optimized one takes many minutes to build), the directory
for the newcomer's own work is a temporary one, and Ctrl-C comes after three seconds.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/first-hour.md"
INSTEAD = {
    "make demo": "make demo STEPS=30",
    "cargo install --path . --locked": "cargo install --path . --locked --offline --profile dev --quiet",
    "pretrain watch run": "timeout --preserve-status --signal=INT 3 pretrain watch run --listen 127.0.0.1:0",
    "mkdir -p hour && cd hour": 'cd "$NEWCOMER"',
}


def commands():
    text = PAGE.read_text()
    blocks = re.findall(r"^```sh *(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for mark, block in blocks if not mark for line in block.splitlines()]
    for line in INSTEAD:
        if lines.count(line) != 1:
            sys.exit(f"{PAGE.name} does not have the line `{line}`: see INSTEAD")
    return [INSTEAD.get(line, line) for line in lines]


def main():
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="newcomer-") as folder:
        folder = Path(folder)
        work = folder / "work"
        work.mkdir()
        environment = {
            **os.environ,
            "NEWCOMER": str(work),
            "CARGO_INSTALL_ROOT": str(folder / "installed"),
            "PATH": f"{folder / 'installed/bin'}:{os.environ['PATH']}",
            "XDG_DATA_HOME": str(folder / "data"),
            "ANKH_COMPILATION_CACHE": str(folder / "programs"),
        }
        environment.pop("ANKH_PJRT_PLUGIN", None)
        # Each command is shown before what it prints.
        script = "set -euo pipefail\n" + "\n".join(
            f"printf '\\n$ %s\\n' {quoted(line)}\n{line}" for line in commands()
        )
        done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=environment)
        if done.returncode:
            sys.exit(f"{PAGE.name}: the last command above ended with {done.returncode}")
        for made in ["mine.toml", "run/config.toml", "run/metrics.jsonl", "report.html", "hf/model.safetensors"]:
            if not (work / made).is_file():
                sys.exit(f"{PAGE.name}: the commands have not made {made}")
    print(f"\nthe first hour took {time.monotonic() - began:.0f} s")


def quoted(line):
    return "'" + line.replace("'", "'\\''") + "'"


main()
