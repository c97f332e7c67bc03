"""Stands in for gcloud: checks its arguments strictly, and keeps a cloud in the directory STAND_IN.

    bucket/       objects, by bucket and key
    queue/        queued resources, one JSON file each
    scenario.json what goes wrong, and how each machine of the job comes to its end
    calls         one line for each call; KILL="N before" kills the caller at the N-th one before it
                  is carried out, KILL="N after" after it

A queued resource goes on by one state each time it is looked at. When its slice is there, each of
its hosts says so in the bucket, as `run.sh` does. Its end is the next one of `ends`: `suspended`,
`preempted` (the slice is dead, and its queued resource does not know), `failed`, `half` (half of the
hosts never start), or an exit code of the program. Where they are `quick`, nobody waits for them.
"""

import atexit
import fnmatch
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

HOME = Path(os.environ["STAND_IN"])
ZONAL = {"--project", "--zone"}
CREATE = ZONAL | {
    "--node-id", "--accelerator-type", "--runtime-version", "--labels", "--metadata-from-file",
    "--spot", "--reserved", "--network", "--subnetwork", "--service-account", "--async", "--quiet",
}  # fmt: skip
# Each command with the number of its other arguments, and its options. All take a value but these.
SWITCHES = {"--spot", "--reserved", "--async", "--quiet", "--force", "--recursive"}
COMMANDS = {
    "auth list": ((0, 0), {"--filter", "--format"}),
    "projects describe": ((1, 1), {"--format"}),
    "compute tpus locations list": ((0, 0), {"--project", "--format"}),
    "compute tpus tpu-vm accelerator-types list": ((0, 0), ZONAL | {"--format"}),
    "compute tpus tpu-vm describe": ((1, 1), ZONAL | {"--format"}),
    "compute tpus tpu-vm ssh": ((1, 1), ZONAL | {"--worker", "--quiet", "--command", "--output-directory"}),
    "compute tpus queued-resources create": ((1, 1), CREATE),
    "compute tpus queued-resources describe": ((1, 1), ZONAL | {"--format"}),
    "compute tpus queued-resources delete": ((1, 1), ZONAL | {"--force", "--async", "--quiet"}),
    "beta quotas info list": ((0, 0), {"--service", "--project", "--quiet", "--format"}),
    "storage buckets describe": ((1, 1), {"--project", "--format"}),
    "storage cat": ((1, 1), {"--project", "--range"}),
    "storage ls": ((1, 1), {"--project"}),
    "storage rm": ((1, 1), {"--project", "--quiet"}),
    "storage cp": ((2, 99), {"--project", "--quiet", "--if-generation-match"}),
    "storage rsync": ((2, 2), {"--recursive", "--quiet", "--exclude"}),
}


def fail(words, code=1):
    print(f"ERROR: (gcloud) {words}", file=sys.stderr)
    sys.exit(code)


def parsed(arguments):
    """The command, its other arguments and its options."""
    words = [word for word in arguments if not word.startswith("--")]
    for length in range(min(len(words), 5), 1, -1):
        command = " ".join(arguments[:length])
        if command in COMMANDS:
            break
    else:
        fail(f"Invalid choice: {arguments}", 2)
    (least, most), known = COMMANDS[command]
    others, options = [], {}
    for argument in arguments[length:]:
        if not argument.startswith("--"):
            others.append(argument)
            continue
        name, _, value = argument.partition("=")
        if name not in known or name in options or (name in SWITCHES) == ("=" in argument):
            fail(f"unrecognized arguments: {argument}", 2)
        options[name] = value
    if not least <= len(others) <= most:
        fail(f"{command}: wrong number of arguments: {others}", 2)
    if known >= ZONAL and not ZONAL <= set(options):
        fail(f"{command}: a project and a zone must be specified", 2)
    return command, others, options


def scenario():
    defaults = {
        "account": "you@example.com", "project": "proj", "zones": ["us-central2-b"],
        "types": ["v4-8", "v4-16", "v4-64"], "quota": 64, "bucket": "US-CENTRAL2", "ends": [0],
        "refuse": {}, "hosts": 8, "lives": 1, "quick": False,
    }  # fmt: skip
    file = HOME / "scenario.json"
    return defaults | (json.loads(file.read_text()) if file.exists() else {})


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_bytes(text if isinstance(text, bytes) else text.encode())
    new.rename(path)


# The bucket.


def place(url):
    if not url.startswith("gs://"):
        fail(f"{url} is no URL of a bucket", 2)
    return HOME / "bucket" / url[5:]


def objects(url):
    """The objects that a URL names, which may have wildcards."""
    found = {
        "gs://" + path.relative_to(HOME / "bucket").as_posix(): path
        for path in (HOME / "bucket").rglob("*")
        if path.is_file() and not path.name.startswith(".new")
    }
    pattern = url.replace("/**", "/*") if url.endswith("/**") else url
    deep = url.endswith("/**")
    return {
        name: path
        for name, path in sorted(found.items())
        if fnmatch.fnmatchcase(name, pattern) and (deep or name.count("/") == pattern.count("/"))
    }


def matched(url):
    found = objects(url)
    if not found:
        fail(f"The following URLs matched no objects or files:\n{url}")
    return found


def storage(verb, others, options):
    if verb == "cat":
        for path in matched(others[0]).values():
            content = path.read_bytes()
            if "--range" in options:
                content = content[int(options["--range"]) :]
            sys.stdout.buffer.write(content)
    elif verb == "ls":
        print("\n".join(matched(others[0])))
    elif verb == "rm":
        for path in matched(others[0]).values():
            path.unlink()
    elif verb == "cp":
        *sources, to = others
        if len(sources) > 1 and not to.endswith("/"):
            fail(f"{to} must be a directory")
        for source in sources:
            if source.startswith("gs://"):
                content = matched(source)[source].read_bytes()
            else:
                content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
            if not to.startswith("gs://"):
                write(Path(to), content)
                continue
            target = place(to + Path(source).name if to.endswith("/") else to)
            if options.get("--if-generation-match") == "0" and target.exists():
                fail("HTTPError 412: At least one of the pre-conditions you specified did not hold.")
            write(target, content)
    elif verb == "rsync":
        source, to = others
        down = source.startswith("gs://")
        root, target = (place(source), Path(to)) if down else (Path(source), place(to))
        if down and not root.exists():
            fail(f"{source} matched no objects or files")
        hidden = re.compile(options.get("--exclude", r"(?!)"))
        for path in root.rglob("*"):
            name = path.relative_to(root).as_posix()
            if path.is_file() and not hidden.match(name):
                write(target / name, path.read_bytes())
    elif verb == "buckets":
        if scenario()["bucket"] is None:
            fail(f"{others[1]} not found: 404.")
        print(json.dumps({"location": scenario()["bucket"], "location_type": "region"}))


# The queue.


def said(machine, host, state, code=None):
    mark = {"host": host, "state": state, "at": int(time.time()), "code": code}
    write(place(f"{machine['directory']}/job/hosts/{host}.json"), json.dumps(mark) + "\n")


def go_on(file, machine):
    """One step in the life of a machine."""
    world = scenario()
    end = world["ends"][min(machine["number"], len(world["ends"]) - 1)]
    order = ["ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    state = machine["state"]
    if state == "DELETING":
        file.unlink()
        return
    if state in order[:-1]:
        machine["state"] = "ACTIVE" if world["quick"] else order[order.index(state) + 1]
        if end == "failed" and machine["state"] == "PROVISIONING":
            machine["state"] = "FAILED"
            machine["why"] = "there is no more capacity in the zone"
        if machine["state"] == "ACTIVE":
            hosts = range(world["hosts"] // 2 if end == "half" else world["hosts"])
            for host in hosts:
                said(machine, host, "running")
    elif state == "ACTIVE":
        machine["age"] += 1
        if machine["age"] > world["lives"]:
            if end == "suspended":
                machine["state"] = "SUSPENDING"
            elif end == "preempted":
                machine["node"] = "PREEMPTED"
            elif isinstance(end, int):
                said(machine, 0, "ended", end)
                mark = {"code": end, "host": 0, "at": int(time.time())}
                write(place(f"{machine['directory']}/job/ended.json"), json.dumps(mark) + "\n")
    elif state == "SUSPENDING":
        machine["state"] = "SUSPENDED"
    write(file, json.dumps(machine))


def zone_of(options):
    world = scenario()
    if options["--project"] != world["project"] or options["--zone"] not in world["zones"]:
        zone = f"projects/{options['--project']}/locations/{options['--zone']}"
        fail(f"PERMISSION_DENIED: Permission denied on '{zone}' (or it may not exist).")


def queue(verb, name, options):
    zone_of(options)
    file = HOME / "queue" / f"{name}.json"
    if verb == "create":
        number = len((HOME / "created").read_text().split()) if (HOME / "created").exists() else 0
        refused = scenario()["refuse"].get(str(number))
        if refused and not (HOME / f"refused-{number}").exists():
            (HOME / f"refused-{number}").touch()
            fail(refused)
        if file.exists():
            fail(f"ALREADY_EXISTS: Resource '{name}' already exists")
        if any((HOME / "queue").glob("*.json")):
            (HOME / "two-machines").touch()
        key, _, script = options["--metadata-from-file"].partition("=")
        text = Path(script).read_text()
        source = re.search(r"^ANKH_SOURCE=(gs://\S+)/job/[0-9a-f]+$", text, re.M)
        if key != "startup-script" or options["--node-id"] != name or not source:
            fail("INVALID_ARGUMENT", 2)
        label = dict(pair.split("=") for pair in options["--labels"].split(","))
        (HOME / "queue").mkdir(exist_ok=True)
        write(file, json.dumps({
            "state": "ACCEPTED", "number": number, "age": 0, "node": "READY", "labels": label,
            "directory": source[1], "options": options, "script": text,
        }))  # fmt: skip
        with (HOME / "created").open("a") as created:
            created.write(f"{name}\n")
    elif not file.exists():
        fail(f"NOT_FOUND: Resource '{name}' was not found")
    elif verb == "describe":
        machine = json.loads(file.read_text())
        state = {"state": machine["state"]}
        if "why" in machine:
            state["failedData"] = {"error": {"code": 8, "message": machine["why"]}}
        spec = {"nodeId": name, "node": {"labels": machine["labels"]}}
        print(json.dumps({"name": name, "state": state, "tpu": {"nodeSpec": [spec]}}))
        if not os.environ.get("STILL"):
            go_on(file, machine)
    elif verb == "delete":
        machine = json.loads(file.read_text())
        if machine["state"] == "ACTIVE" and "--force" not in options:
            fail("FAILED_PRECONDITION: the queued resource has nodes")
        write(file, json.dumps(machine | {"state": "DELETING"}))


def vm(verb, name, options):
    zone_of(options)
    file = HOME / "queue" / f"{name}.json"
    machine = json.loads(file.read_text()) if file.exists() else {"state": "NONE"}
    # What becomes of a slice is known a little later.
    if machine["state"] not in ("ACTIVE", "SUSPENDING"):
        fail(f"NOT_FOUND: Resource '{name}' was not found")
    if verb == "describe":
        print(machine["node"])
        return
    if machine["state"] != "ACTIVE":
        fail(f"NOT_FOUND: Resource '{name}' was not found")
    if scenario().get("ssh") == "half":
        fail("SSH: 4 of 8 workers could not be reached")
    command = options["--command"]
    if "host.sh stop" in command:
        for host in range(scenario()["hosts"]):
            said(machine, host, "ended", 75)
        with (HOME / "saved").open("a") as saved:
            saved.write("saved\n")
    elif "tail -n" in command:
        for log in (HOME / "logs").glob("*.log"):
            shutil.copy(log, options["--output-directory"])
    else:
        fail(f"bash: {command}: command not found", 127)


def main():
    arguments = sys.argv[1:]
    command, others, options = parsed(arguments)
    with (HOME / "calls").open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    count = len((HOME / "calls").read_text().splitlines())
    kill, when = os.environ.get("KILL", "0 never").split()
    if count == int(kill):
        if when == "before":
            os.kill(os.getppid(), signal.SIGKILL)
            sys.exit(1)
        atexit.register(os.kill, os.getppid(), signal.SIGKILL)
    world = scenario()
    if world.get("down"):
        fail("There was a problem reaching the service: no route to host")
    first, *rest = command.split()
    if command == "auth list":
        print(world["account"])
    elif command == "projects describe":
        if others[0] != world["project"]:
            fail(f"[you@example.com] does not have permission to access projects instance [{others[0]}]")
        print(others[0])
    elif command == "compute tpus locations list":
        print("\n".join([*world["zones"], "europe-west4-a"]))
    elif command == "compute tpus tpu-vm accelerator-types list":
        zone_of(options)
        print("\n".join(world["types"]))
    elif command == "beta quotas info list":
        zones = [{"dimensions": {"zone": z}, "details": {"value": str(world["quota"])}} for z in world["zones"]]
        print(json.dumps([{"quotaId": "TPUV4PreemptiblePodPerProjectPerZoneForTPUAPI", "dimensionsInfos": zones}]))
    elif first == "storage":
        storage(rest[0], (["describe"] if rest[0] == "buckets" else []) + others, options)
    elif rest[1] == "queued-resources":
        queue(rest[2], others[0], options)
    else:
        vm(rest[2], others[0], options)


main()
