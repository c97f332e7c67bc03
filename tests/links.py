#!/usr/bin/env python3
"""Dead links in the project's documents, without a network: part of `make lint` and `make docs`.

    python3 tests/links.py              local links of all Markdown files: the files and headings that
                                        they name exist, and each page of docs/ is in its SUMMARY.md
    python3 tests/links.py site DIR     the same for a built site, which also loads nothing from
                                        elsewhere
"""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
DEFINITION = re.compile(r"^ *\[[^\]]+\]: *<?(\S+?)>?(?: .*)?$", re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)


def without_code(text):
    """The text with its code blanked, so that positions and lines stay."""
    blank = lambda match: re.sub(r"[^\n]", " ", match.group())
    text = re.sub(r"^( *)(```+|~~~+).*?^ *\2 *$", blank, text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", blank, text, flags=re.DOTALL)


def without_blocks(text):
    return re.sub(r"^( *)(```+|~~~+).*?^ *\2 *$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """What headings are called in links, as forges and mdBook name them."""
    found = set()
    text = without_blocks(page.read_text())
    for heading in HEADING.findall(text):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        number, unique = 0, name
        while unique in found:
            number += 1
            unique = f"{name}-{number}"
        found.add(unique)
    return found | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


def pages():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.md"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def dead_links():
    for page in pages():
        text = without_code(page.read_text())
        for link in [*LINK.finditer(text), *DEFINITION.finditer(text)]:
            target = link.group(1)
            line = text.count("\n", 0, link.start()) + 1
            if fault := fault_of(page, target):
                yield f"{page.relative_to(ROOT)}:{line}: {target}: {fault}"


def fault_of(page, target):
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return None
    path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not path.exists():
        return "there is no such file"
    if not path.is_relative_to(ROOT):
        return "it is outside the project"
    if page.is_relative_to(DOCS) and not path.is_relative_to(DOCS):
        return "it is outside docs/, so the site has no page for it: name the path instead"
    if parts.fragment and path.suffix == ".md" and unquote(parts.fragment) not in anchors(path):
        return "the page has no such heading"
    return None


def pages_left_out():
    summary = DOCS / "SUMMARY.md"
    listed = {(DOCS / target).resolve() for target in LINK.findall(summary.read_text())}
    for page in pages():
        if page.is_relative_to(DOCS) and page != summary and page not in listed:
            yield f"{page.relative_to(ROOT)} is not in docs/SUMMARY.md"


class Page(HTMLParser):
    """The links of a page, what it loads, and its anchors."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.update(attributes[key] for key in ("id", "name") if attributes.get(key))
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        for key in ("src", "href"):
            if tag != "a" and attributes.get(key):
                self.loads.append(attributes[key])


def dead_links_of_site(site):
    parsed = {path.resolve(): Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    if not parsed:
        yield f"{site} has no pages"
    for path, page in parsed.items():
        name = path.relative_to(site.resolve())
        if name.name == "404.html":
            # Its links begin at the root of a server.
            continue
        for target in [*page.links, *page.loads]:
            parts = urlsplit(target)
            if parts.scheme in ("http", "https") or parts.netloc:
                if target in page.loads:
                    yield f"{name}: {target}: a page loads nothing from elsewhere"
                continue
            if parts.scheme:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            file = file / "index.html" if file.is_dir() else file
            if not file.exists():
                yield f"{name}: {target}: there is no such file"
            elif parts.fragment and file in parsed:
                if unquote(parts.fragment) not in parsed[file].anchors:
                    yield f"{name}: {target}: the page has no such anchor"


def main():
    match sys.argv[1:]:
        case []:
            faults = [*dead_links(), *pages_left_out()]
        case ["site", directory]:
            faults = list(dead_links_of_site(Path(directory)))
        case _:
            sys.exit(__doc__)
    if faults:
        sys.exit("\n".join(faults))


main()
