#!/usr/bin/env python3
"""Opens the pages of `pretrain report` and `pretrain watch` in Chromium, as their readers do.

    make check-pages                        or, with tests/browser/requirements.txt installed,
    python3 tests/browser/check_pages.py [--pretrain BINARY] [--only CHECK]

The tiny model is trained twice on the bundled proteins; one run is stopped and resumed. This checks
that, on a phone, a laptop and a wide screen, in the light and in the dark,

  nothing is asked for outside of the page's own place, and the console has no error;
  the page is no wider than the screen, and no text is cut off or too pale;
  everything can be done with the keyboard;
  a line that a run adds is seen within seconds, and zooming in fetches more points;
  a stranger without the token sees nothing;
  the name of a run is never taken for markup;
  a run of a million logged steps is open in two seconds.

Screenshots are left in target/pages.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parent))
import runs  # noqa: E402

PICTURES = runs.ROOT / "target/pages"
SIZES = {"phone": (390, 844), "laptop": (1280, 800), "wide": (2560, 1440)}
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"]
MILLION, SECONDS = 1_000_000, 2.0

# What a reader with weak eyes, or a narrow window, would not see.
FAULTS = """() => {
  const faults = [], page = document.documentElement;
  if (page.scrollWidth > page.clientWidth) faults.push(`the page is ${page.scrollWidth} px wide in a window of ${page.clientWidth}`);
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => {
    const [r, g, b] = color.map((part) => part / 255).map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgb(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) return color.slice(0, 3);
    }
    return [255, 255, 255];
  };
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!text || !element.checkVisibility() || element.closest(".unseen, .skip, script, :disabled")) continue;
    const style = getComputedStyle(element), name = `${element.tagName} "${element.textContent.trim().slice(0, 30)}"`;
    if (element.clientWidth && element.scrollWidth > element.clientWidth + 1 && style.textOverflow !== "ellipsis" && !element.closest(".scroll")) faults.push(`${name} is cut off`);
    const [a, b] = [light(rgb(style.color).slice(0, 3)), light(behind(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) faults.push(`${name} has a contrast of ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
  }
  for (const control of document.querySelectorAll("button, input, figure")) {
    if (control.checkVisibility() && !control.closest(".unseen") && !(control.ariaLabel || control.textContent.trim() || control.labels?.length)) faults.push(`${control.outerHTML.slice(0, 60)} has no name`);
  }
  return faults;
}"""


def check(condition, message):
    if not condition:
        sys.exit(f"check_pages: {message}")


class Reader:
    """A page, with what it asked for and complained of."""

    def __init__(self, context, own):
        self.page = context.new_page()
        self.own, self.asked, self.complaints = own, [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, url):
        """Seconds until the charts are drawn."""
        began = time.monotonic()
        self.page.goto(url)
        self.ready()
        return time.monotonic() - began

    def ready(self):
        self.page.wait_for_selector("html[data-ready] .chart canvas", timeout=20_000)

    def text(self, selector):
        return self.page.inner_text(selector)

    def await_that(self, script, what):
        # Asked from outside: the page's policy lets no text become code.
        patience = time.monotonic() + 10
        while not self.page.evaluate(script):
            check(time.monotonic() < patience, f"{what} did not come about: {script}")
            time.sleep(0.05)

    def close(self):
        outside = [url for url in self.asked if not url.startswith((self.own, "data:"))]
        check(not outside, f"outside requests: {outside}")
        check(not self.complaints, f"the console says {self.complaints}")
        self.page.close()


@contextmanager
def watching(pretrain, *arguments):
    """A server and the address that it prints."""
    command = [str(part) for part in (pretrain, "watch", "--listen", "127.0.0.1:0", *arguments)]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        url = process.stdout.readline().strip()
        check(url.startswith("http://127.0.0.1:"), f"watch printed {url!r}")
        yield url, time.monotonic() - began
    finally:
        process.send_signal(signal.SIGINT)
        check(process.wait(timeout=20) == 0, "watch did not end in order")


def look(reader, name):
    """Every size and theme, with pictures."""
    for theme in ("light", "dark"):
        reader.page.emulate_media(color_scheme=theme)
        for size, (width, height) in SIZES.items():
            reader.page.set_viewport_size({"width": width, "height": height})
            reader.page.wait_for_timeout(200)
            faults = reader.page.evaluate(FAULTS)
            check(not faults, f"{name}, {size}, {theme}: " + "; ".join(faults[:5]))
            reader.page.screenshot(path=PICTURES / f"{name}-{size}-{theme}.png", full_page=True)


def report(context, pretrain, work):
    page = work / "report.html"
    runs.quietly([pretrain, "report", "runs/steady", "runs/resumed", "--output", page], cwd=work)
    reader = Reader(context, page.as_uri())
    reader.open(page.as_uri())
    check("steady" in reader.text("#cards") and "resumed" in reader.text("#cards"), "a run is missing")
    check("optimizer.name" in reader.text("#differences"), "the differing optimizer is not shown")
    check("resuming from step" in reader.text("#events"), "the restart is not listed")
    check("Memory per chip" in reader.text("#plan"), "the plan is not shown")
    look(reader, "report")
    reader.close()
    single = work / "single.html"
    runs.quietly([pretrain, "report", "runs/resumed", "--output", single], cwd=work)
    reader = Reader(context, single.as_uri())
    reader.open(single.as_uri())
    look(reader, "single")
    reader.close()


def keyboard(context, pretrain, work):
    with watching(pretrain, work / "runs") as (url, _):
        reader = Reader(context, url)
        page = reader.page
        page.set_viewport_size({"width": 1280, "height": 800})
        page.emulate_media(color_scheme="light")
        reader.open(url)
        press = page.keyboard.press
        focus = "(document.activeElement.id || document.activeElement.className || document.activeElement.name)"
        order = []
        for _ in range(12):
            press("Tab")
            order.append(page.evaluate(focus))
        check(order[:3] == ["skip", "theme", "help-open"] and order[3:5] == ["head", "head"] and "axis" in order, f"the order of focus is {order}")
        press("?")
        check(page.is_visible("#help"), "the keys are not shown")
        page.screenshot(path=PICTURES / "help.png")
        press("Escape")
        check(not page.is_visible("#help"), "the keys stay")
        press("l")
        check(page.is_checked("input[value=log]"), "l does not switch the scale")
        press("x")
        check(page.is_checked("input[value=residues]"), "x does not switch the axis")
        press("x")
        check(page.is_checked("input[value=hours]"), "x does not switch the axis again")
        press("x")
        page.focus("figure[data-key=loss]")
        press("ArrowLeft")
        check(reader.text("figure[data-key=grad_norm] .at").startswith("step"), "cursors are not moved together")
        before = len(reader.asked)
        press("+")
        check(page.is_enabled("#zoom-reset"), "+ does not narrow the range")
        page.wait_for_timeout(600)
        check(any("from=" in url for url in reader.asked[before:]), "zooming in fetches nothing")
        page.screenshot(path=PICTURES / "zoomed.png")
        press("0")
        check(page.is_disabled("#zoom-reset"), "0 does not show all")
        press("1")
        check(page.get_attribute(".head >> nth=0", "aria-pressed") == "false", "1 does not hide a run")
        press("1")
        press("t")
        check(reader.text("#theme") == "Theme: light", "t does not switch the theme")
        page.focus("#smoothing")
        value = page.input_value("#smoothing")
        press("ArrowRight")
        check(page.input_value("#smoothing") != value, "the slider does not move by keys")
        press("t"), press("t")
        box = page.locator("figure[data-key=loss] .u-over").bounding_box()
        page.mouse.move(box["x"] + 100, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 220, box["y"] + 60, steps=4)
        page.mouse.up()
        check(page.is_enabled("#zoom-reset"), "dragging does not zoom")
        page.mouse.dblclick(box["x"] + 50, box["y"] + 40)
        check(page.is_disabled("#zoom-reset"), "a double click does not show all")
        reader.close()


def live(context, pretrain, work):
    copy = work / "live/base"
    shutil.copytree(work / "runs/steady", copy, ignore=shutil.ignore_patterns("checkpoints", "hlo", "events.*", ".lease"))
    with watching(pretrain, work / "live") as (url, _):
        reader = Reader(context, url)
        reader.open(url)
        check("300" in reader.text(".steps"), "the run is not as it was")
        began = time.monotonic()
        runs.append(copy, 301, 1.2345)
        reader.await_that("document.querySelector('.steps').innerText.includes('Step 301') && document.querySelector('[data-key=loss] .readout').innerText.includes('1.2345')", "the new line")
        print(f"  a new line was shown {time.monotonic() - began:.1f} s after it was written")
        shutil.copytree(copy, work / "live/late")
        reader.await_that("document.querySelectorAll('.card').length === 2", "the new run")
        lines = (copy / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        (copy / "new").write_bytes(b"".join(lines[:100]))
        os.replace(copy / "new", copy / "metrics.jsonl")
        reader.await_that("document.querySelector('.steps').innerText.includes('Step 100')", "the rewritten file")
        look(reader, "dashboard")
        reader.close()


def token(context, pretrain, work):
    file = work / "token"
    file.write_text("a-token-of-the-browser-test\n")
    with watching(pretrain, work / "runs", "--token-file", file) as (url, _):
        origin = url.split("?")[0]
        try:
            urllib.request.urlopen(origin)
            sys.exit("check_pages: a stranger is let in")
        except urllib.error.HTTPError as error:
            body = error.read().decode()
            check(error.code == 401 and "steady" not in body, f"a stranger sees {body}")
        reader = Reader(context, origin)
        answer = reader.page.goto(origin)
        check(answer.status == 401 and "steady" not in reader.page.content(), "a browser without the token is let in")
        reader.complaints.clear()
        reader.page.goto(url)
        reader.ready()
        check("token" not in reader.page.url, f"the token stays in {reader.page.url}")
        cookies = context.cookies(origin)
        check([(cookie["httpOnly"], cookie["sameSite"]) for cookie in cookies] == [(True, "Strict")], f"the cookie is {cookies}")
        context.clear_cookies()
        reader.await_that("document.getElementById('banner').innerText.includes('signed out')", "the message that the cookie is gone")
        reader.complaints.clear()
        reader.page.goto("about:blank")
        reader.asked.clear()
        reader.close()


def attack(context, pretrain, work):
    runs.copy_as_attack(work / "runs/steady", work / "attack")
    page = work / "attack.html"
    runs.quietly([pretrain, "report", work / "attack", "--output", page])
    with watching(pretrain, work / "attack") as (url, _):
        for own in (page.as_uri(), url):
            reader = Reader(context, own)
            reader.open(own)
            check(reader.text("#cards .name") == runs.ATTACK, f"the run is called {reader.text('#cards .name')!r}")
            check(reader.page.evaluate("window.attacked === undefined && !document.querySelector('img')"), "the name of a run is taken for markup")
            reader.close()


def million(context, pretrain, work):
    path = work / "long/million"
    runs.synthesize(path, MILLION)
    size = (path / "metrics.jsonl").stat().st_size
    with watching(pretrain, work / "long") as (url, started):
        reader = Reader(context, url)
        reader.page.set_viewport_size({"width": 1280, "height": 800})
        took = reader.open(url)
        print(f"  a million steps ({size / 1e6:.0f} MB): watch reads them in {started:.2f} s, the page is open in {took:.2f} s")
        check(took < SECONDS, f"the page took {took:.2f} s")
        check("1,000,000" in reader.text(".steps"), "steps are missing")
        began = time.monotonic()
        before = len(reader.asked)
        reader.page.evaluate("setRange([499_000, 501_000])")
        reader.await_that("loaded.shown.get(0)?.quantities.loss.steps.includes(500_137)", "the spike when zoomed in")
        print(f"  zooming in took {time.monotonic() - began:.2f} s")
        check(any("from=" in url for url in reader.asked[before:]), "nothing was fetched")
        spike = reader.page.evaluate("Math.max(...loaded.whole.get(0).quantities.loss.values)")
        check(spike > 20, f"the spike is lost: {spike}")
        reader.page.evaluate("setRange(null)")
        reader.page.wait_for_timeout(300)
        reader.page.screenshot(path=PICTURES / "million.png", full_page=True)
        reader.close()
    page, began = work / "million.html", time.monotonic()
    runs.quietly([pretrain, "report", path, "--output", page])
    wrote = time.monotonic() - began
    reader = Reader(context, page.as_uri())
    took = reader.open(page.as_uri())
    print(f"  report writes {page.stat().st_size / 1e6:.1f} MB in {wrote:.2f} s, which are open in {took:.2f} s")
    check(took < SECONDS, f"the report took {took:.2f} s")
    reader.close()


CHECKS = {"report": report, "keyboard": keyboard, "live": live, "token": token, "attack": attack, "million": million}


def chromium():
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    check(found, "there is no Chromium: apt-get install chromium, or name it in CHROMIUM")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrain", default=runs.ROOT / "target/debug/pretrain", type=Path)
    parser.add_argument("--only", choices=CHECKS, action="append")
    parser.add_argument("--work", type=Path, help="keep the runs here, and use those that are")
    arguments = parser.parse_args()
    pretrain = arguments.pretrain.resolve()
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        work = Path(temporary)
        trained = arguments.work or work
        began = time.monotonic()
        if not (trained / "runs").exists():
            trained.mkdir(parents=True, exist_ok=True)
            runs.make(pretrain, trained)
        if trained != work:
            shutil.copytree(trained / "runs", work / "runs")
        print(f"trained in {time.monotonic() - began:.0f} s")
        context = playwright.chromium.launch_persistent_context(
            work / "profile", executable_path=chromium(), headless=True, args=SWITCHES, reduced_motion="reduce")
        for name, run in CHECKS.items():
            if arguments.only and name not in arguments.only:
                continue
            began = time.monotonic()
            run(context, pretrain, work)
            print(f"{name}: {time.monotonic() - began:.1f} s")
        context.close()
    print(f"all is well; pictures are in {PICTURES.relative_to(runs.ROOT)}")


if __name__ == "__main__":
    main()
