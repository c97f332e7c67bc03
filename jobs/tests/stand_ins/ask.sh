#!/usr/bin/env bash
# Has the stand-in that serves at PORT do this call; see server.py.
LC_ALL=C
input=
for argument; do
    [[ $argument != - ]] || IFS= read -r -d '' input
done
exec 3<>"/dev/tcp/127.0.0.1/$PORT"
set -- "HOME=$HOME" "STAND_IN=$STAND_IN" "KILL=${KILL:-0 never}" "STILL=${STILL:-}" "$@"
printf '%s\0' "$PPID" "$PWD" "$input" 4 "$@" '' >&3
read -r code out err <&3
IFS= read -r -N "$out" text <&3
printf '%s' "$text"
IFS= read -r -N "$err" text <&3
printf '%s' "$text" >&2
exit "$code"
