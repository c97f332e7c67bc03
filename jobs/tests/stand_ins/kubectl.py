"""Stands in for kubectl: checks its arguments, and keeps one JobSet in STAND_IN/jobset.json. Its pods
go on each time it is looked at, and complete at the fourth. `no-jobsets` and `no-claim` in STAND_IN
take these from the cluster."""

import json
import os
import re
import sys
from pathlib import Path

HOME = Path(os.environ["STAND_IN"])
STORE = HOME / "jobset.json"


def fail(words):
    print(f"Error from server (NotFound): {words}", file=sys.stderr)
    sys.exit(1)


def main():
    arguments = sys.argv[1:]
    with (HOME / "calls").open("a") as calls:
        calls.write(json.dumps(["kubectl", *arguments]) + "\n")
    words = [word for word in arguments if not word.startswith("--")]
    options = dict(word.split("=", 1) for word in arguments if "=" in word)
    if options.pop("--namespace", None) != "default":
        fail("no such namespace")
    match words:
        case ["get", "crd", "jobsets.jobset.x-k8s.io"]:
            if (HOME / "no-jobsets").exists():
                fail('customresourcedefinitions "jobsets.jobset.x-k8s.io" not found')
        case ["get", "persistentvolumeclaim", "runs"]:
            if (HOME / "no-claim").exists():
                fail('persistentvolumeclaims "runs" not found')
        case ["get", "nodes"]:
            pass
        case ["get", "jobset", name]:
            if STORE.exists():
                jobset = json.loads(STORE.read_text())
                assert jobset["metadata"]["name"] == name
                print(json.dumps(jobset))
                jobset["looks"] += 1
                ready = min(jobset["looks"], 1)
                jobset["status"] = {"replicatedJobsStatus": [{"ready": ready, "active": 1}], "restarts": 1}
                if jobset["looks"] >= 4:
                    done = {"type": "Completed", "status": "True", "message": "jobset completed successfully"}
                    jobset["status"]["conditions"] = [done]
                STORE.write_text(json.dumps(jobset))
        case ["apply"]:
            text = Path(options["--filename"]).read_text()
            asked = json.loads(re.search(r"^    ankh/job: (.*)$", text, re.M)[1])
            name = re.search(r"^  name: (.*)$", text, re.M)[1]
            if not STORE.exists():
                meta = {"name": name, "annotations": {"ankh/job": asked}}
                STORE.write_text(json.dumps({"metadata": meta, "status": {}, "looks": 0}))
                with (HOME / "created").open("a") as created:
                    created.write(name + "\n")
        case ["delete", "jobset", _]:
            STORE.unlink(missing_ok=True)
        case ["logs"]:
            print("[pod/large-slice-0-1-abcde/train] 2026-03-01T00:00:02Z second")
            print("[pod/large-slice-0-0-fghij/train] 2026-03-01T00:00:01.5Z first")
        case _:
            print(f"error: unknown command {words}", file=sys.stderr)
            sys.exit(2)


main()
