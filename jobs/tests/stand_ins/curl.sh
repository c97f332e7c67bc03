#!/usr/bin/env bash
# Stands in for curl, asked by a TPU VM for its number: hosts are called hN.
[[ ${*: -1} == */instance/attributes/agent-worker-number ]] || exit 22
echo "${STAND_IN_HOST#h}"
