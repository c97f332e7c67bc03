#!/usr/bin/env python3
"""Sends the metrics of a run to MLflow while it is written.

    pip install mlflow-skinny
    python examples/export_mlflow.py runs/base --experiment ankh --tracking-uri http://mlflow:5000

It can be stopped and started again: the server tells up to which step it has the run.
"""

import argparse
import time

from follow_metrics import Run
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

# The tag by which the run is found again, and the metric that comes last of each step.
TAG, LAST = "ankh.run", "exported_step"
# What MLflow takes at once, and of a setting.
PARAMS, LENGTH = 100, 500


def experiment(client, name):
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name)


def begin(client, run, experiment):
    """The MLflow run of a run, made if there is none."""
    found = client.search_runs([experiment], f"tags.`{TAG}` = '{run.id}'", max_results=1)
    if found:
        return found[0]
    made = client.create_run(experiment, run_name=run.name, tags={TAG: run.id})
    settings = [Param(key, str(value)[:LENGTH]) for key, value in run.settings().items()]
    for start in range(0, len(settings), PARAMS):
        client.log_batch(made.info.run_id, params=settings[start : start + PARAMS])
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="the run directory")
    parser.add_argument("--experiment", default="ankh")
    parser.add_argument("--tracking-uri")
    parser.add_argument("--once", action="store_true", help="send what is there, and end")
    arguments = parser.parse_args()

    run = Run(arguments.run)
    client = MlflowClient(tracking_uri=arguments.tracking_uri)
    exported = begin(client, run, experiment(client, arguments.experiment))
    identifier = exported.info.run_id
    sent = int(exported.data.metrics.get(LAST, 0))
    count = 0
    for step, numbers in run.follow(sent, once=arguments.once):
        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value in numbers.items()]
        client.log_batch(identifier, [*metrics, Metric(LAST, step, now, step)])
        sent, count = step, count + 1
    if sent >= run.settings().get("train.steps", float("inf")):
        client.set_terminated(identifier)
    print(f"{count} steps sent, up to {sent}")


if __name__ == "__main__":
    main()
