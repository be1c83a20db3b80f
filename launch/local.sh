#!/usr/bin/env bash
# One training run as several processes of this machine.
#
#   launch/local.sh NUM_PROCESSES [arguments of yolov1_jax.main ...]
#   launch/local.sh 2 --config=configs/quickstart.py --workdir=runs/two
#
# On a machine with GPUs, each process takes the one with its number. SIGTERM and Ctrl-C reach
# every process: they save and end. The run fails as a whole if one process fails.
set -euo pipefail

num_processes=${1:?"usage: launch/local.sh NUM_PROCESSES [arguments of yolov1_jax.main ...]"}
shift
port=${PORT:-$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')}

pids=()
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' TERM INT
for ((id = 0; id < num_processes; id++)); do
  # Only process 0 shows progress; the others speak up when something is wrong.
  if command -v nvidia-smi >/dev/null; then export CUDA_VISIBLE_DEVICES=$id; fi
  python -m yolov1_jax.main "$@" \
    --coordinator="localhost:$port" --num_processes="$num_processes" --process_id="$id" &
  pids+=($!)
done

status=0
for _ in "${pids[@]}"; do
  # The first to fail ends the others, which would wait for it for ever.
  code=0
  wait -n || code=$?
  # 128 + n: `wait` itself was interrupted by the signal that the processes are now handling.
  while ((code > 128)) && jobs -r | grep -q .; do code=0; wait -n || code=$?; done
  if ((code != 0)); then
    status=$code
    kill -TERM "${pids[@]}" 2>/dev/null || true
  fi
done
exit "$status"
