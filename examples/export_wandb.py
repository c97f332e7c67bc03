#!/usr/bin/env python3
"""Sends the metrics of a run to Weights & Biases while it is written.

    pip install wandb
    python examples/export_wandb.py runs/base --project ankh [--entity TEAM] [--once]

It can be stopped and started again: what was sent is not sent twice. With WANDB_MODE=offline
nothing is sent, and `wandb sync` does that later.
"""

import argparse

import wandb
from follow_metrics import Run

# Where it notes what was sent; a server that is not asked cannot tell.
NOTE = "exported_to_wandb"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="the run directory")
    parser.add_argument("--project", default="ankh")
    parser.add_argument("--entity")
    parser.add_argument("--once", action="store_true", help="send what is there, and end")
    arguments = parser.parse_args()

    run = Run(arguments.run)
    note = run.directory / NOTE
    session = wandb.init(
        project=arguments.project,
        entity=arguments.entity,
        id=run.id,
        name=run.name,
        config=run.settings(),
        dir=run.directory,
        resume="allow",
    )
    noted = int(note.read_text()) if note.exists() else 0
    sent = max(noted, session.starting_step - 1)
    count = 0
    for step, numbers in run.follow(sent, once=arguments.once):
        # The server refuses steps that are not later than those it has.
        session.log(numbers, step=step)
        note.write_text(f"{step}\n")
        sent, count = step, count + 1
    session.finish()
    print(f"{count} steps sent, up to {sent}")


if __name__ == "__main__":
    main()
