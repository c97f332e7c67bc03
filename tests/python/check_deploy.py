#!/usr/bin/env python3
"""Gives what `pretrain submit` writes and runs to the programs that know its form.

    python3 tests/python/check_deploy.py        needs deploy.txt beside it installed

The transcripts under tests/golden/submit have every file and command. Scripts go to shellcheck, the
manifest to the schemas of Kubernetes (the JobSet's template as the Job that it becomes), the unit to
`systemd-analyze verify` and the commands of gcloud to gcloud itself, where these two are installed.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "tests/golden/submit"
SCRIPTS = ROOT / "jobs/scripts"


def files(transcript):
    """The files that a transcript writes, by name."""
    found, name = {}, None
    for line in transcript.splitlines():
        if line.startswith("> "):
            name = Path(line[2:]).name
            found[name] = ""
        elif name and (line.startswith("    ") or not line):
            found[name] += line[4:] + "\n"
        else:
            name = None
    return found


def run(command, **options):
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode:
        sys.exit(f"{shlex.join(map(str, command))} says:\n{done.stdout}")
    return done.stdout


def check_scripts(folder, transcripts):
    shellcheck = Path(sys.executable).with_name("shellcheck")
    scripts = [*SCRIPTS.glob("*.sh"), *(ROOT / "jobs/tests/stand_ins").glob("*.sh")]
    for place, transcript in transcripts.items():
        for name, text in files(transcript).items():
            if name.endswith((".sh", ".env")):
                scripts.append(folder / f"{place}-{name}")
                scripts[-1].write_text(text)
    # Settings are read by other files.
    run([shellcheck, "--shell=bash", "--exclude=SC2034", *scripts])
    print(f"shellcheck: {len(scripts)} scripts")


def check_unit(folder):
    """The unit as `host.sh start` writes it, with a stand-in for systemctl."""
    if not shutil.which("systemd-analyze"):
        print("systemd-analyze: not installed")
        return
    home, tools = folder / "job", folder / "tools"
    for path in (home, tools):
        path.mkdir()
    for script in SCRIPTS.glob("*.sh"):
        shutil.copy(script, home)
    (home / "job.env").write_text("ANKH_NAME=large\nANKH_AT_BOOT=yes\n")
    (tools / "systemctl").write_text("#!/bin/sh\n")
    (tools / "systemctl").chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    environment = dict(os.environ, PATH=path, ANKH_SYSTEMD="/", ANKH_ROOT=str(folder), HOME=str(folder))
    run(["bash", home / "host.sh", "start"], env=environment)
    [unit] = folder.rglob("ankh-large.service")
    run(["systemd-analyze", "verify", "--man=no", unit])
    print("systemd-analyze: the unit")


def check_manifest(transcript):
    manifest = files(transcript)["jobset.yaml"]
    checked = []
    for document in yaml.safe_load_all(manifest):
        if document["kind"] == "JobSet":
            for jobs in document["spec"]["replicatedJobs"]:
                meta = {"name": document["metadata"]["name"]}
                job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, **jobs["template"]}
                kubernetes_validate.validate(job, "1.37", strict=True)
        else:
            kubernetes_validate.validate(document, "1.37", strict=True)
        checked.append(document["kind"])
    assert checked == ["ConfigMap", "JobSet"], checked
    print(f"kubernetes-validate: {', '.join(checked)}")


def check_gcloud(folder, transcripts):
    if not shutil.which("gcloud"):
        print("gcloud: not installed")
        return
    commands = [line[2:] for text in transcripts.values() for line in text.splitlines() if line.startswith("$ gcloud")]
    for script in SCRIPTS.glob("*.sh"):
        text = script.read_text().replace("\\\n", " ")
        for words in re.findall(r"gcloud (storage [^>|&;)\n]*)", text):
            commands.append("gcloud " + re.sub(r'"[^"]*"', "gs://BUCKET/x", words))
    # Capitals stand for names. The linter takes what follows an option without a value for one.
    commands = [re.sub(r" <<'EOF'$", "", command) for command in commands]
    commands = [re.sub(r"PROJECT|BUCKET", "my-name", command) for command in commands]
    commands = [command.replace(" --quiet", "").replace(" --recursive", "") for command in commands]
    commands = sorted({command.strip() for command in commands})
    listed = folder / "commands.json"
    listed.write_text(json.dumps([{"command_string": command} for command in commands]))
    # Nobody's configuration is read, and no server is asked.
    alone = {"CLOUDSDK_CONFIG": str(folder / "config"), "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false"}
    lint = ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={listed}", "--serialize"]
    done = subprocess.run(lint, env=os.environ | alone, stdout=subprocess.PIPE, check=True)
    results = json.loads(done.stdout)
    assert len(results) == len(commands), (len(results), len(commands))
    for [result] in results.values():
        if not result["success"]:
            sys.exit(f"gcloud does not take {result['command_string']}: {result['error_message']}")
    print(f"gcloud: {len(commands)} commands")


def main():
    transcripts = {path.stem: path.read_text() for path in sorted(GOLDENS.glob("*.txt"))}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        check_scripts(folder, transcripts)
        check_unit(folder)
        check_manifest(transcripts["gke"])
        check_gcloud(folder, transcripts)


main()
