#!/usr/bin/env bash
# One training run on a TPU pod slice, a process per host.
#
#   TPU_NAME=my-v4-32 ZONE=us-central2-b launch/tpu_pod.sh \
#     --config=configs/r34.py --workdir=gs-mounted-folder/r34
#
# Differs from launch/local.sh only in how the processes find each other: JAX asks the TPU's own
# metadata. The checkout must lie at the same path on every host, and the run folder on storage
# that all of them share.
set -euo pipefail

: "${TPU_NAME:?"set TPU_NAME to the name of the pod slice"}"
: "${ZONE:?"set ZONE to the zone of the pod slice"}"
checkout=${CHECKOUT:-$(pwd)}
arguments=$(printf ' %q' "$@")

gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone="$ZONE" --worker=all --command="
  cd $(printf '%q' "$checkout") &&
  python -m yolov1_jax.main$arguments --distributed"
