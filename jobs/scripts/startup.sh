#!/usr/bin/env bash
# Brings a job to a machine that has just been created or started: fetches its files from the
# bucket, checks them against the checksum above, and starts its service. Compute Engine runs this
# as root, each time the machine starts. It tries until it succeeds, because nobody is there to.
set -uo pipefail
export PATH="$PATH:/snap/bin" LC_ALL=C HOME=${HOME:-/root}

bring() (
    set -e
    umask 077
    mkdir -p "$ANKH_HOME"
    cd "$ANKH_HOME"
    # On a machine that was only restarted, all is there.
    if ! echo "$ANKH_CHECKSUM  files.sha256" | sha256sum --check --status ||
        ! sha256sum --check --status files.sha256; then
        gcloud storage cp --quiet "$ANKH_SOURCE/files.sha256" files.sha256
        echo "$ANKH_CHECKSUM  files.sha256" | sha256sum --check --quiet
        while read -r _ name <&3; do
            mkdir -p "$(dirname "$name")"
            gcloud storage cp --quiet "$ANKH_SOURCE/$name" "$name"
        done 3<files.sha256
    fi
    bash ./host.sh install
    bash ./host.sh start
)

attempt=0
while :; do
    # Not in the condition, where `set -e` would have no effect.
    bring &
    if wait $!; then break; fi
    attempt=$((attempt + 1))
    echo "the job cannot be started yet; attempt $attempt" >&2
    ((attempt < ${ANKH_ATTEMPTS:-1000})) || exit 1
    sleep "${ANKH_PAUSE:-20}"
done
echo "the job is started"
