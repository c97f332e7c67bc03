#!/usr/bin/env python3
"""Packs the binary with what belongs beside it: `make dist`.

    python3 deploy/dist.py BINARY DIRECTORY

Writes DIRECTORY/ankh-VERSION-x86_64-linux.tar.gz and SHA256SUMS. The archive depends on its content
alone: names in order, owner 0, and the time of the last commit (or SOURCE_DATE_EPOCH). The presets
are inside the binary. The plugin is not: `pretrain doctor --fetch` downloads it.
"""

import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHELLS = {"bash": "pretrain.bash", "zsh": "_pretrain", "fish": "pretrain.fish"}
# The libraries of every Linux with glibc: nothing else is needed to start the binary.
SYSTEM = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2", "ld-linux-x86-64.so.2"}


def output_of(*command):
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return done.stdout


def time_of_archive():
    if stamp := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(stamp)
    return int(output_of("git", "log", "-1", "--format=%ct"))


def needs(binary):
    """The shared libraries that the binary needs, and the newest glibc whose functions it uses."""
    dynamic = output_of("readelf", "--dynamic", "--version-info", "--wide", binary).decode()
    libraries = set(re.findall(r"\(NEEDED\).*\[(.+?)\]", dynamic))
    if foreign := libraries - SYSTEM:
        sys.exit(f"{binary} needs {', '.join(sorted(foreign))}, which a system may not have")
    versions = re.findall(r"GLIBC_(\d+)\.(\d+)", dynamic)
    return ".".join(map(str, max((int(major), int(minor)) for major, minor in versions)))


def content(binary):
    """What the archive has, by name; those that may be executed are true."""
    files = {
        "pretrain": (Path(binary).read_bytes(), True),
        "LICENSE": ((ROOT / "LICENSE").read_bytes(), False),
        "README.md": ((ROOT / "README.md").read_bytes(), False),
        "CHANGELOG.md": ((ROOT / "CHANGELOG.md").read_bytes(), False),
        "THIRD-PARTY-LICENSES.txt": (output_of(sys.executable, "deploy/third_party.py"), False),
    }
    for shell, name in SHELLS.items():
        files[f"completions/{name}"] = (output_of(binary, "completions", shell), False)
    with tempfile.TemporaryDirectory() as folder:
        output_of(binary, "man", "--output", folder)
        for page in Path(folder).iterdir():
            files[f"man/man1/{page.name}"] = (page.read_bytes(), False)
    return files


def pack(files, folder, time):
    """A compressed archive in memory."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=time, filename="") as stream:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, (data, executable) in sorted(files.items()):
                entry = tarfile.TarInfo(f"{folder}/{name}")
                entry.size, entry.mtime = len(data), time
                entry.mode = 0o755 if executable else 0o644
                archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    binary, directory = str(Path(sys.argv[1]).resolve()), Path(sys.argv[2])
    glibc = needs(binary)
    version = output_of(binary, "--version").decode().split()[-1]
    folder = f"ankh-{version}-x86_64-linux"
    archive = pack(content(binary), folder, time_of_archive())
    directory.mkdir(parents=True, exist_ok=True)
    place = directory / f"{folder}.tar.gz"
    place.write_bytes(archive)
    digest = hashlib.sha256(archive).hexdigest()
    (directory / "SHA256SUMS").write_text(f"{digest}  {place.name}\n")
    print(f"{place}: {len(archive) / 1e6:.1f} MB, for Linux on x86-64 with glibc {glibc} or newer")


main()
