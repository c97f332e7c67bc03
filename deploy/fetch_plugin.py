#!/usr/bin/env python3
"""Puts a pinned PJRT plugin where the project looks for it.

    python3 deploy/fetch_plugin.py cpu|tpu                 into this checkout (`make plugin`)
    python3 deploy/fetch_plugin.py cpu|tpu DIRECTORY       into a directory that has each plugin under
                                                           its hash (`pretrain doctor --fetch`)

plugins.json next to this file names, for each platform, one wheel and one library inside it, with
the sha256 of both. pip downloads the wheel, however pip is configured on this machine. The library
is moved into place only after its bytes were checked. If the right library is already there,
nothing is done and nothing is contacted.

Needs Python 3.8 or newer with pip, and nothing else.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CHUNK = 1 << 20


class CannotFetch(Exception):
    """Why there is no plugin, and what to do about it."""


def sha256_of(stream, copy_to=None):
    """The digest of a stream. It is copied to `copy_to`, if given, while it is read."""
    digest = hashlib.sha256()
    while True:
        chunk = stream.read(CHUNK)
        if not chunk:
            return digest.hexdigest()
        digest.update(chunk)
        if copy_to is not None:
            copy_to.write(chunk)


def place_of(pin, directory):
    """Where the library belongs: in the checkout, or in a directory under its hash."""
    if directory is None:
        return ROOT / pin["place"]
    return Path(directory) / pin["library_sha256"] / Path(pin["member"]).name


def is_in_place(pin, place):
    if not place.is_file():
        return False
    with place.open("rb") as library:
        return sha256_of(library) == pin["library_sha256"]


def download_wheel(pin, folder):
    """Asks pip for the very file that is pinned, whatever Python this is, and returns its path."""
    interpreter, abi, system = pin["tag"]
    requirements = folder / "requirements.txt"
    requirements.write_text("{requirement} --hash=sha256:{wheel_sha256}\n".format(**pin))
    command = [
        sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download",
        "--require-hashes", "--no-deps", "--only-binary=:all:",
        "--implementation", interpreter.rstrip("0123456789"), "--python-version", interpreter.lstrip("cpy"),
        "--abi", abi, "--platform", system,
        "--dest", str(folder), "--requirement", str(requirements),
    ]  # fmt: skip
    pip = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        said = "\n".join("  " + line for line in pip.stdout.strip().splitlines()[-8:])
        raise CannotFetch(
            "pip could not download {} (is pip installed, and can it reach a package index?); it said:\n{}".format(
                pin["requirement"], said
            )
        )
    return wheels[0]


def unpack_library(pin, wheel, folder):
    """The library out of the wheel, in `folder`, checked."""
    unpacked = folder / "library.so"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(pin["member"]) as member, unpacked.open("wb") as copy:
            found = sha256_of(member, copy_to=copy)
    except KeyError:
        raise CannotFetch("{} holds no {}".format(wheel.name, pin["member"]))
    if found != pin["library_sha256"]:
        raise CannotFetch(
            "{} in {} has sha256 {}, expected {}".format(pin["member"], wheel.name, found, pin["library_sha256"])
        )
    unpacked.chmod(0o755)
    return unpacked


def fetch(pin, place):
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise CannotFetch(
            "{} exists for Linux on x86-64 only, this is {} on {}; set ANKH_PJRT_PLUGIN to a PJRT plugin built for it".format(
                pin["requirement"], platform.system(), platform.machine()
            )
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    # In the same directory, so that the last step is a rename, and a reader sees all of the library
    # or none.
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=str(place.parent)) as folder:
        folder = Path(folder)
        os.replace(str(unpack_library(pin, download_wheel(pin, folder), folder)), str(place))


def main():
    pins = json.loads((HERE / "plugins.json").read_text())
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in pins:
        print("usage: fetch_plugin.py {} [DIRECTORY]".format("|".join(pins)), file=sys.stderr)
        return 2
    pin = pins[sys.argv[1]]
    place = place_of(pin, sys.argv[2] if len(sys.argv) == 3 else None)
    try:
        if not is_in_place(pin, place):
            print("fetching {}".format(pin["requirement"]), file=sys.stderr)
            fetch(pin, place)
            print("{} is in place".format(place), file=sys.stderr)
    except (CannotFetch, OSError, zipfile.BadZipFile) as problem:
        print("no {} plugin: {}".format(sys.argv[1], problem), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
