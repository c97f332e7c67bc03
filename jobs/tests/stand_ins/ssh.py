"""Stands in for ssh and scp: hosts are directories below STAND_IN/hosts, and what they are told to
do is really done there. A file `unreachable` in one makes it so, `refuses` fails commands that have
its words. `calls` has a line for each call; KILL=N kills the caller at the N-th one, once.

Called as `ssh OPTIONS HOST COMMAND`, or as `scp OPTIONS FILE... HOST:PATH`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

STAND_IN = Path(os.environ["STAND_IN"])
OPTIONS = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=15"]


def host(name):
    home = STAND_IN / "hosts" / name
    if not home.is_dir() or (home / "unreachable").exists():
        print(f"ssh: connect to host {name} port 22: No route to host", file=sys.stderr)
        sys.exit(255)
    return home


def main():
    tool, *arguments = sys.argv[1:]
    with (STAND_IN / "calls").open("a") as calls:
        calls.write(json.dumps([tool, *arguments]) + "\n")
    count = len((STAND_IN / "calls").read_text().splitlines())
    # Several at once may be the N-th.
    if 0 < int(os.environ.get("KILL", "0")) <= count:
        try:
            (STAND_IN / "killed").touch(exist_ok=False)
        except FileExistsError:
            sys.exit(1)
        os.kill(os.getppid(), signal.SIGKILL)
        sys.exit(1)
    if arguments[:4] != OPTIONS:
        print(f"{tool}: unexpected options: {arguments[:4]}", file=sys.stderr)
        sys.exit(2)
    arguments = arguments[4:]
    if tool == "scp":
        assert arguments[0] == "-q", arguments
        *sources, target = arguments[1:]
        name, _, path = target.partition(":")
        home = host(name)
        for source in map(Path, sources):
            to = home / path
            to = to / source.name if path.endswith("/") else to
            shutil.copyfile(source, to)
        return
    name, command = arguments
    home = host(name)
    refuses = home / "refuses"
    if refuses.exists() and refuses.read_text().strip() in command:
        print("bash: cannot do that", file=sys.stderr)
        sys.exit(1)
    environment = dict(os.environ, HOME=str(home), STAND_IN_HOST=name)
    environment.pop("KILL", None)
    sys.exit(subprocess.run(["bash", "-c", command], cwd=home, env=environment).returncode)


main()
