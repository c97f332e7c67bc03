#!/usr/bin/env python3
"""The structure of the house, and three rules of its words: `make structure`, part of `make lint`.

    python3 tests/house.py           draws the crates and the modules, each with what it uses
    python3 tests/house.py check     fails on a circle, on a picture in ARCHITECTURE.md that is not
                                     this one, on a name that has been replaced, on long lines, and
                                     on a test that docs/operations.md names and nobody has written
    python3 tests/house.py write     puts the picture into ARCHITECTURE.md
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CRATES = ["proto", "storage", "cluster", "jobs", "hlo", "mosaic", "pjrt", "data", "."]
BEGIN, END = "<!-- structure: begin -->\n```text\n", "```\n<!-- structure: end -->"

# Public names for which the field has other words, by the files that had them.
REPLACED = {
    "hlo/*.rs": """Layout Uneven Port named named_beside keep take_rows add_rows like Site Forward Body
        Given""",
    "src/*.rs": """Fleet DeviceArray Compiled extremes part_of Visible HIDDEN Expansion Start wide
        Moment Session Source Feed Fed Rest Draft Placed Facts Tried Told Undivided""",
    "data/*.rs": """Rows Course Stretches Section Draw Held Seen Visit Share announce Workplace Notes
        Reach Numbered Plan Place Row Source Start Layout""",
    "src/lib.rs": "fleet layout run slice tpu_vm weights",
}
ITEM = r"^ *pub(?:\(crate\))? (?:struct|enum|trait|fn|mod|type|const|static) "
REPLACED_SETTINGS = re.compile(r"--play-hosts|train\.accumulation|data\.rows")


def code(path):
    """The lines of a file that are no comment and no test."""
    text = re.sub(r"#\[cfg\(test\)\]\n(?:pub )?mod \w+;", "", path.read_text())
    kept = []
    for line in text.splitlines():
        if line.strip() == "#[cfg(test)]":
            break
        if not line.lstrip().startswith("//"):
            kept.append(line)
    return "\n".join(kept)


def modules(source):
    """Each top module of a crate, with the other ones whose names it uses."""
    names = {
        path.stem if path.is_file() else path.name
        for path in source.iterdir()
        if (path.suffix == ".rs" and path.stem != "lib") or (path / "mod.rs").exists()
    }
    uses = {name: set() for name in names}
    for path in source.rglob("*.rs"):
        top = path.relative_to(source).parts[0].removesuffix(".rs")
        if top not in names or path.stem == "tests" or "tests" in path.parts:
            continue
        text = code(path)
        found = set(re.findall(r"\bcrate::(\w+)", text))
        for group in re.findall(r"\bcrate::\{(.*?)\};", text, re.DOTALL):
            found |= set(re.findall(r"(?:^|[{,])\s*(\w+)", re.sub(r"\{[^{}]*\}", "", group)))
        uses[top] |= (found & names) - {top}
    return uses


def crates():
    """Each crate with those of the workspace that it uses."""
    uses = {}
    for folder in CRATES:
        manifest = ROOT / folder / "Cargo.toml"
        if manifest.exists():
            needs = tomllib.loads(manifest.read_text()).get("dependencies", {})
            uses[(ROOT / folder).resolve().name if folder != "." else "ankh"] = {
                need.removeprefix("ankh-") for need in needs if need.startswith("ankh-")
            }
    return uses


def layers(uses):
    """Users before what they use; modules that use each other stand together."""
    order, reach = [], {}
    for name in uses:
        seen, open_ = set(), [name]
        while open_:
            for used in uses[open_.pop()] - seen:
                seen.add(used)
                open_.append(used)
        reach[name] = seen

    def place(name):
        if any(name in group for group in order):
            return
        group = {name} | {other for other in reach[name] if name in reach[other]}
        for used in sorted(set().union(*(uses[member] for member in group)) - group):
            place(used)
        order.append(sorted(group))

    for name in sorted(uses):
        place(name)
    return order[::-1]


def drawn(title, uses):
    groups = [(" + ".join(group), set().union(*(uses[name] for name in group)) - set(group))
              for group in layers(uses)]
    width = max(len(group) for group, _ in groups)
    lines = [f"  {group:{width}}  ->  {' '.join(sorted(used))}" if used else f"  {group}"
             for group, used in groups]
    return "\n".join([title, *lines]) + "\n"


def structure():
    """Titles, each with who uses whom there."""
    yield "crates", crates()
    for folder in CRATES[1:]:
        source = ROOT / folder / "src"
        if source.exists() and len(uses := modules(source)) > 1:
            yield (Path(folder) / "src").as_posix(), uses


def picture():
    return "\n".join(drawn(title, uses) for title, uses in structure())


def circles():
    for title, uses in structure():
        for group in layers(uses):
            if len(group) > 1:
                yield f"{title}: a circle of {', '.join(group)}"


def files(*patterns):
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def replaced_names():
    for where, names in REPLACED.items():
        item = re.compile(ITEM + rf"({'|'.join(names.split())})\b")
        for path in files(where):
            yield from found(path, item)
    for path in files("*.md", "*.toml"):
        if path.name != "CHANGELOG.md":
            yield from found(path, REPLACED_SETTINGS)


def found(path, pattern):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if match := pattern.search(line):
            where = f"{path.relative_to(ROOT)}:{number}"
            yield f"{where}: `{match.group().split()[-1]}` was replaced by a name of the field's"


def long_lines():
    """Prose over 100 columns: documents but for their tables, transcripts and links; comments."""
    for path in files("*.md", "*.rs", "*.py", "*.sh", "*.toml", "*.proto", "Makefile"):
        fence = False
        for number, line in enumerate(path.read_text().splitlines(), 1):
            fence ^= path.suffix == ".md" and line.lstrip().startswith("```")
            prose = path.suffix == ".md" and not fence and not line.lstrip().startswith("|")
            comment = path.suffix != ".md" and re.match(
                r"\s*//" if path.suffix in (".rs", ".proto") else r"\s*#", line)
            if len(line) > 100 and (prose or comment) and "://" not in line:
                yield f"{path.relative_to(ROOT)}:{number}: {len(line)} columns"


def missing_tests():
    """Tests that the page on operations names and nobody has written."""
    page = ROOT / "docs/operations.md"
    named = set(re.findall(r"`((?:[a-z0-9]+_){3,}[a-z0-9]+)`", page.read_text()))
    written = set()
    for path in files("*.rs"):
        written.update(re.findall(r"\bfn (\w+)\(", path.read_text()))
    for name in sorted(named - written):
        yield f"{page.relative_to(ROOT)}: there is no test `{name}`"


def main():
    page = ROOT / "ARCHITECTURE.md"
    text, drawing = page.read_text(), picture()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    whole = before + BEGIN + drawing + END + after
    match sys.argv[1:]:
        case []:
            print(drawing, end="")
        case ["write"]:
            page.write_text(whole)
        case ["check"]:
            faults = [*circles(), *replaced_names(), *long_lines(), *missing_tests()]
            if text != whole:
                faults.append("ARCHITECTURE.md: the picture is not `make structure`'s: make picture")
            if faults:
                sys.exit("\n".join(faults))
        case _:
            sys.exit(__doc__)


main()
