#!/usr/bin/env bash
# What is done with a job on one of its hosts: host.sh install|start|stop|state, in the directory
# that the job's files were brought to.
#
#   install   checks the files, mounts what is shared, fetches libtpu where there is none
#   start     makes a service of run.sh; one that runs is left as it is
#   stop      asks the program to save and end, and waits for that
#   state     prints one JSON object
#
# Where it says `down`, it should run and does not.
#
# The service is one of systemd: of the system for root, of the user otherwise. Without systemd it
# is a process of its own session, with its number in run.pid.
set -euo pipefail
export PATH="$PATH:/snap/bin" LC_ALL=C HOME=${HOME:-/root}
home=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$home"
# shellcheck source=/dev/null
source ./job.env
unit="ankh-$ANKH_NAME.service"

# Another root directory, for tests.
root=${ANKH_ROOT:-}

# The number of this host: the one that it was given, or that the TPU VM has, or 0.
host_number() {
    if [[ ! -s host ]]; then
        local server=${GCE_METADATA_HOST:-metadata.google.internal}
        local attributes="http://$server/computeMetadata/v1/instance/attributes"
        curl --silent --fail --max-time 5 --retry 3 --header 'Metadata-Flavor: Google' \
            "$attributes/agent-worker-number" >host.new || echo 0 >host.new
        mv host.new host
    fi
    cat host
}

# Runs a command up to five times.
again() {
    local attempt
    for attempt in 1 2 3 4 5; do
        "$@" && return
        ((attempt == 5)) || sleep $((attempt * ${ANKH_PAUSE:-5}))
    done
    return 1
}

manager() {
    if [[ ! -e ${ANKH_SYSTEMD:-/run/systemd/system} ]]; then
        echo none
    elif [[ $(id -u) == 0 ]]; then
        echo system
    elif systemctl --user show-environment >/dev/null 2>&1; then
        echo user
    else
        echo none
    fi
}

has_libtpu() {
    compgen -G "$root/lib/libtpu.so" ||
        compgen -G "$root/usr/lib/libtpu.so" ||
        compgen -G "$root/usr/local/lib/libtpu.so" ||
        compgen -G "$root/usr/local/lib/python3*/*-packages/libtpu/libtpu.so" ||
        compgen -G "$root/usr/lib/python3*/*-packages/libtpu/libtpu.so" ||
        compgen -G "$HOME/.local/lib/python3*/site-packages/libtpu/libtpu.so" ||
        compgen -G "plugins/tpu/*.so"
}

mount_share() {
    local point=$root/mnt/ankh
    mountpoint --quiet "$point" && return
    if ! command -v mount.nfs >/dev/null; then
        again apt-get update -qq
        again env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nfs-common
    fi
    mkdir -p "$point"
    again mount -t nfs -o hard,nconnect=4 "$ANKH_MOUNT" "$point"
}

# Host 0 writes the metrics. On a new machine they go on where the mirror ends.
restore_run() {
    local said
    [[ $(host_number) == 0 && ! -e $ANKH_RUN_DIR/config.toml ]] || return 0
    if said=$(gcloud storage ls "$ANKH_BUCKET/run/config.toml" 2>&1); then
        gcloud storage rsync --recursive --quiet "$ANKH_BUCKET/run" "$ANKH_RUN_DIR"
    elif [[ $said != *"matched no objects"* ]]; then
        echo "$said" >&2
        return 1
    fi
}

install() {
    sha256sum --check --quiet files.sha256
    chmod 755 pretrain
    host_number >/dev/null
    [[ -z $ANKH_MOUNT ]] || mount_share
    mkdir -p "$ANKH_RUN_DIR"
    [[ $ANKH_SHARED == yes ]] || again restore_run
    if [[ -e fetch_plugin.py ]] && ! has_libtpu >/dev/null; then
        # It puts the library in plugins/ of the directory above its own.
        mkdir -p deploy
        cp fetch_plugin.py plugins.json deploy/
        again python3 deploy/fetch_plugin.py tpu
    fi
    ./pretrain --version
}

write_unit() {
    local directory=$1 target=$2
    mkdir -p "$directory"
    cat >"$directory/.$unit.new" <<EOF
[Unit]
Description=ankh job $ANKH_NAME
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=/bin/bash $home/run.sh
# 0 is a run that is complete; 1, 2 and 3 need somebody to look. All else goes on: 75 is a run that
# was stopped by something else than its service.
Restart=on-failure
RestartPreventExitStatus=1 2 3
RestartSec=10
# The script passes the signal on, and waits for the save.
KillMode=mixed
TimeoutStopSec=15min
LimitMEMLOCK=infinity

[Install]
WantedBy=$target
EOF
    mv "$directory/.$unit.new" "$directory/$unit"
}

lives() {
    [[ -s run.pid ]] && kill -0 "$(cat run.pid)" 2>/dev/null
}

start() {
    rm -f stopped
    # What an earlier start has left says nothing of this one.
    runs || rm -f ended
    case $(manager) in
    system)
        write_unit "$root/etc/systemd/system" multi-user.target
        systemctl daemon-reload
        [[ $ANKH_AT_BOOT == no ]] || systemctl enable --quiet "$unit"
        systemctl start "$unit"
        ;;
    user)
        write_unit "$HOME/.config/systemd/user" default.target
        # Without it the service ends with the last login.
        loginctl enable-linger 2>/dev/null || true
        systemctl --user daemon-reload
        systemctl --user enable --quiet "$unit"
        systemctl --user start "$unit"
        ;;
    none)
        lives && return
        rm -f run.pid
        setsid --fork bash -c 'echo $$ >run.pid; exec bash ./run.sh' </dev/null >/dev/null 2>&1
        # Whoever asks next is to find it.
        until [[ -s run.pid ]]; do sleep 0.05; done
        ;;
    esac
}

stop() {
    touch stopped
    case $(manager) in
    system)
        [[ $ANKH_AT_BOOT == no ]] || systemctl disable --quiet "$unit"
        systemctl stop "$unit"
        ;;
    user)
        systemctl --user disable --quiet "$unit"
        systemctl --user stop "$unit"
        ;;
    none)
        lives || return 0
        kill -TERM "$(cat run.pid)"
        while lives; do sleep 0.2; done
        ;;
    esac
}

runs() {
    case $(manager) in
    system) systemctl is-active --quiet "$unit" ;;
    user) systemctl --user is-active --quiet "$unit" ;;
    none) lives ;;
    esac
}

state() {
    local word=down code=null
    if runs; then
        word=running
    elif [[ -e stopped ]]; then
        word=stopped
    elif [[ -s ended ]]; then
        word=ended code=$(cat ended)
    fi
    printf '{"host":%s,"state":"%s","at":%s,"code":%s}\n' \
        "$(host_number)" "$word" "$(date +%s)" "$code"
}

case ${1:-} in
install | start | stop | state) "$1" ;;
*)
    echo "usage: host.sh install|start|stop|state" >&2
    exit 2
    ;;
esac
