#!/usr/bin/env python3
"""The licenses of everything that is linked into `pretrain`, as one text.

    python3 deploy/third_party.py > THIRD-PARTY-LICENSES.txt

Which packages these are, cargo tells. Their texts are in their sources, which cargo has downloaded
to build them. A package without a text has that of another one from its repository, or the Apache
License, if that is its license. Otherwise it is an error.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"
TEXTS = re.compile(r"(licen[cs]e|copying|notice|unlicense)", re.IGNORECASE)
# xz comes with the texts for its programs, which are not linked, beside the one for its library.
NOT_LINKED = re.compile(r"gpl", re.IGNORECASE)
NO_TEXT = {".rs", ".py", ".toml", ".json", ".sh", ".c", ".h", ".html"}


def metadata():
    command = ["cargo", "metadata", "--format-version=1", "--locked", f"--filter-platform={TARGET}"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def linked(tree):
    """The packages that end in the binary: what is reached without tests and build scripts."""
    packages = {package["id"]: package for package in tree["packages"]}
    nodes = {node["id"]: node for node in tree["resolve"]["nodes"]}
    seen, open_ = set(), [tree["resolve"]["root"]]
    while open_:
        name = open_.pop()
        if name in seen:
            continue
        seen.add(name)
        for need in nodes[name]["deps"]:
            if any(kind["kind"] is None for kind in need["dep_kinds"]):
                open_.append(need["pkg"])
    # Those of the workspace have no source.
    found = [packages[name] for name in seen if packages[name]["source"]]
    return sorted(found, key=lambda package: (package["name"], package["version"]))


def texts(package):
    """The license texts in a package's sources, of vendored libraries too."""
    folder = Path(package["manifest_path"]).parent
    found = []
    for path in sorted([*folder.glob("*"), *folder.glob("*/*"), *folder.glob("*/*/*")]):
        is_text = TEXTS.search(path.name) and path.suffix.lower() not in NO_TEXT
        is_text = is_text and not NOT_LINKED.search(path.name)
        if path.is_file() and is_text and "test" not in path.parts:
            found.append(path.read_text(errors="replace").strip())
    return list(dict.fromkeys(found))


def main():
    apache = (ROOT / "LICENSE").read_text().strip()
    by_text, lacking = {}, []
    packages = linked(metadata())
    of_repository = {}
    for package in packages:
        of_repository.setdefault(package["repository"], []).extend(texts(package))
    for package in packages:
        found = texts(package) or list(dict.fromkeys(of_repository[package["repository"]]))
        if not found and "Apache-2.0" in (package["license"] or ""):
            found = [apache]
        if not found:
            lacking.append(f"{package['name']} {package['version']} ({package['license']})")
        for text in found:
            by_text.setdefault(text, []).append(package)
    if lacking:
        sys.exit("no license text: " + ", ".join(lacking))
    print("`pretrain` contains the libraries below. Their licenses follow, each with its libraries.\n")
    for package in packages:
        print(f"  {package['name']} {package['version']}: {package['license']}")
    for text, users in by_text.items():
        names = ", ".join(f"{package['name']} {package['version']}" for package in users)
        print(f"\n{'=' * 100}\n{names}\n{'=' * 100}\n\n{text}")


main()
