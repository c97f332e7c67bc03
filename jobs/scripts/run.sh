#!/usr/bin/env bash
# Runs a host's part of a job, and leaves word of how it ended.
#
# Its output goes to host-N.log, each line behind the time in seconds since 1970. Where the job has
# a directory in a bucket, the run directory and the log are mirrored there. If the hosts do not
# share the run directory, what host 0 tells the others in it is passed on through the bucket.
# `ended.json` there (and `ended` here) says that the program has ended for good, with its exit
# code: 0, 1, 2 or 3. After any other end, the run goes on when this is started again.
set -uo pipefail
export PATH="$PATH:/snap/bin" LC_ALL=C HOME=${HOME:-/root}
home=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$home" || exit 1
# shellcheck source=/dev/null
source ./job.env
host=$(cat host)
umask 077
exec > >(while IFS= read -r line; do printf '%s %s\n' "$EPOCHREALTIME" "$line"; done >>"host-$host.log") 2>&1
stamp=$!

# What host 0 tells the others, and where it is on the way.
told=(.cluster/coordinator.json .run)
meeting=$ANKH_BUCKET/job/meeting

put() {
    gcloud storage cp --quiet "$1" "$2" >/dev/null 2>&1
}

pass_on() {
    local name copy
    for name in "${told[@]}"; do
        copy=.told/${name##*/}
        if [[ $host == 0 ]]; then
            # A copy, because host 0 may replace the file meanwhile.
            if [[ -e $ANKH_RUN_DIR/$name ]] && ! cmp --quiet "$ANKH_RUN_DIR/$name" "$copy"; then
                cp "$ANKH_RUN_DIR/$name" "$copy.new" && put "$copy.new" "$meeting/${name##*/}" &&
                    mv "$copy.new" "$copy"
            fi
        elif gcloud storage cp --quiet "$meeting/${name##*/}" "$copy" >/dev/null 2>&1 &&
            ! cmp --quiet "$copy" "$ANKH_RUN_DIR/$name"; then
            mkdir -p "$ANKH_RUN_DIR/$(dirname "$name")"
            cp "$copy" "$ANKH_RUN_DIR/$name.new" && mv "$ANKH_RUN_DIR/$name.new" "$ANKH_RUN_DIR/$name"
        fi
    done
}

say() {
    printf '{"host":%s,"state":"%s","at":%s,"code":%s}\n' "$host" "$1" "$(date +%s)" "${2:-null}" >.state
    put .state "$ANKH_BUCKET/job/hosts/$host.json"
}

mirror() {
    local hidden='(^|.*/)(\.cluster|\.lease|\.ankh-[^/]*|checkpoints)(/.*)?$'
    if [[ $host == 0 || $ANKH_SHARED == no ]]; then
        gcloud storage rsync --recursive --quiet --exclude="$hidden" \
            "$ANKH_RUN_DIR" "$ANKH_BUCKET/run" >/dev/null 2>&1
    fi
    put "host-$host.log" "$ANKH_BUCKET/logs/host-$host.log"
}

relay() {
    local mirrored=$SECONDS
    say running
    while :; do
        [[ $ANKH_SHARED == yes || $ANKH_HOSTS == 1 ]] || pass_on
        if ((SECONDS - mirrored >= ${ANKH_MIRROR_SECONDS:-60})); then
            mirror
            say running
            mirrored=$SECONDS
        fi
        sleep "${ANKH_RELAY_SECONDS:-5}"
    done
}

rm -f ended
mkdir -p .told "$ANKH_RUN_DIR"
if [[ -n $ANKH_BUCKET ]]; then
    rm -f .told/*
    # Nobody is to look for a host 0 of an earlier machine.
    [[ $host != 0 ]] || gcloud storage rm --quiet "$meeting/coordinator.json" >/dev/null 2>&1
    relay &
    relay=$!
fi

interrupted=
child=
trap 'interrupted=1; [[ -z $child ]] || kill -TERM "$child" 2>/dev/null' TERM INT
if [[ -z $interrupted ]]; then
    ./pretrain launch "${ANKH_ARGUMENTS[@]}" &
    child=$!
fi
code=75
while [[ -n $child ]]; do
    interrupted=
    wait "$child"
    code=$?
    [[ -n $interrupted ]] || break
done
echo "host $host: the run ended with exit code $code"

final=
case $code in
0) [[ $host != 0 ]] || final=1 ;;
1 | 2 | 3) final=1 ;;
esac
if [[ -n $ANKH_BUCKET ]]; then
    kill "$relay" 2>/dev/null
    wait "$relay" 2>/dev/null
    sleep 0.1
    mirror || mirror
    say ended "$code"
    if [[ -n $final ]]; then
        printf '{"code":%s,"host":%s,"at":%s}\n' "$code" "$host" "$(date +%s)" >.ended
        for attempt in 1 2 3 4 5; do
            # The first word counts.
            put .ended "$ANKH_BUCKET/job/ended.json" && break
            sleep $((attempt * ${ANKH_PAUSE:-5}))
        done
    fi
fi
[[ -z $final ]] || echo "$code" >ended
exec >&- 2>&-
wait "$stamp"
exit "$code"
