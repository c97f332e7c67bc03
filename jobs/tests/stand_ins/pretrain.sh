#!/usr/bin/env bash
# Stands in for the program on a host: says its version; launched, it runs until there is a file
# `finish` in STAND_IN, with the exit code to end with, or until it is asked to stop.
set -u
case $1 in
--version) echo "pretrain 0.1.0" ;;
launch)
    run_dir=
    while (($#)); do
        [[ $1 != --run-dir ]] || run_dir=$2
        shift
    done
    trap 'echo "saved on request"; exit 75' TERM
    mkdir -p "$run_dir/.cluster"
    echo "started on ${STAND_IN_HOST:-here}"
    [[ $(cat host) != 0 ]] || echo '{"address":"127.0.0.1:1"}' >"$run_dir/.cluster/coordinator.json"
    echo '{"step":10,"loss":2.5}' >>"$run_dir/metrics.jsonl"
    while [[ ! -s $STAND_IN/finish ]]; do sleep 0.05; done
    exit "$(cat "$STAND_IN/finish")"
    ;;
*) exit 2 ;;
esac
