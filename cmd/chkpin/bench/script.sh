#!/usr/bin/env bash
# What chkpin replaces: copy the newest _metadata of the first running job to a
# constant path. It does not carry what _metadata names.
#
#   script.sh JOBMANAGER CHECKPOINTS APP
set -euo pipefail
jobmanager=$1 checkpoints=$2 app=$3
bucket=${checkpoints#s3://}
bucket=${bucket%%/*}

jobs=$(curl --fail --silent --show-error "$jobmanager/jobs")
job=$(tr '}' '\n' <<<"$jobs" | sed -n '/"RUNNING"/s/.*"id":"\([0-9a-f]*\)".*/\1/p' | head -n 1)
[ -n "$job" ] || { echo "no running job" >&2; exit 1; }

newest=$(aws s3 ls --recursive "$checkpoints/$job/" | grep '/_metadata$' | sort | tail -n 1 | awk '{ print $4 }')
aws s3 cp --only-show-errors "s3://$bucket/$newest" "$app/last-state/_metadata"
