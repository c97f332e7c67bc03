"""Searches for the fastest layout of each preset on each slice, and writes configs/layouts.toml.

The compiler's answers are cached, so an interrupted run goes on where it stopped. Other presets'
and slices' entries stay.
"""

import argparse
import json
import pathlib
import subprocess
import tomllib

HEADER = """\
# The fastest layout known of a preset on a slice, by the estimates of the compiler for TPUs. A step
# is laid out so unless its configuration says otherwise. `make layouts` searches for faster ones.
"""
TABLE = pathlib.Path(__file__).parent.parent / "configs/layouts.toml"
LAYOUT = ["fsdp", "model", "zero", "gradients", "remat", "gradient_accumulation"]


def search(pretrain, preset, slice_, limit):
    """The best of at most `limit` layouts as an entry of the table, or None."""
    command = [pretrain, "plan", "--slice", slice_, "--config", preset, "--search", "--json"]
    command += ["--limit", str(limit), "--minutes", str(24 * 60)]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if found.returncode == 3:  # Nothing fits.
        return None
    found.check_returncode()
    ranking = json.loads(found.stdout)["ranking"]
    best = ranking["tried"][0]
    measured = best["outcome"]["compiled"]
    return {
        "preset": preset,
        "slice": slice_,
        "rows": ranking["rows"],
        "layout": best["choice"],
        "cycles": measured["cycles"],
        "communication_seconds": round(measured["communication_seconds"], 4),
        "peak": measured["peak"],
    }


def write(entries):
    def order(entry):
        generation, size = entry["slice"].split("-")
        return entry["preset"], generation, int(size)

    lines = [HEADER]
    for entry in sorted(entries, key=order):
        layout = ", ".join(f"{key} = {json.dumps(entry['layout'][key])}" for key in LAYOUT)
        lines += ["[[layouts]]"]
        lines += [f"{key} = {json.dumps(entry[key])}" for key in ("preset", "slice", "rows")]
        lines += [f"layout = {{ {layout} }}"]
        figures = ("cycles", "communication_seconds", "peak")
        lines += [f"{key} = {entry[key]}" for key in figures] + [""]
    TABLE.write_text("\n".join(lines))


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pretrain", default="target/debug/pretrain")
    arguments.add_argument("--limit", type=int, default=6)
    arguments.add_argument("--presets", required=True)
    arguments.add_argument("--slices", required=True)
    options = arguments.parse_args()
    entries = tomllib.loads(TABLE.read_text())["layouts"]
    for slice_ in options.slices.split():
        for preset in options.presets.split():
            print(f"{preset} on {slice_}", flush=True)
            found = search(options.pretrain, preset, slice_, options.limit)
            place = (preset, slice_)
            entries = [entry for entry in entries if (entry["preset"], entry["slice"]) != place]
            entries += [found] if found else []
            write(entries)


if __name__ == "__main__":
    main()
