#!/usr/bin/env bash
# One training run as several processes of this machine.
#
#   launch/local.sh NUM_PROCESSES [arguments of yolov1_jax.main ...]
#   launch/local.sh 2 --config=configs/quickstart.py --workdir=runs/two
#
# On a machine with NVIDIA GPUs, each process takes one: the first of CUDA_VISIBLE_DEVICES, if that
# is set, or GPU 0; the second; and so on. SIGTERM and Ctrl-C reach every process: they save after
# the same step and end. If a process fails, the others, which cannot go on without it, are ended,
# and its exit code is the launcher's. PORT chooses the port at which the processes meet.
set -euo pipefail

if [[ ! ${1:-} =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: launch/local.sh NUM_PROCESSES [arguments of yolov1_jax.main ...]" >&2
  exit 2
fi
num_processes=$1
shift
grace_seconds=10

port=${PORT:-$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')}
gpus=()
if command -v nvidia-smi >/dev/null; then
  IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((num_processes - 1)))}"
  if ((${#gpus[@]} < num_processes)); then
    echo "error: $num_processes processes need as many GPUs, CUDA_VISIBLE_DEVICES has ${#gpus[@]}" >&2
    exit 2
  fi
fi

pids=()
# Started by a script, background processes ignore Ctrl-C: SIGTERM tells them the same.
# (With "+", an empty array is no error in bash 3.2, that of macOS.)
trap 'kill -TERM ${pids[@]+"${pids[@]}"} 2>/dev/null || true' TERM INT HUP
for ((id = 0; id < num_processes; id++)); do
  if ((${#gpus[@]})); then export CUDA_VISIBLE_DEVICES=${gpus[id]}; fi
  # Only process 0 shows progress; the others speak up when something is wrong.
  python -m yolov1_jax.main "$@" \
    --coordinator="localhost:$port" --num_processes="$num_processes" --process_id="$id" &
  pids+=($!)
done

# SIGKILL leaves this script no time to end them.
python -c '
import contextlib, os, signal, sys, time
launcher, grace_seconds, *pids = map(int, sys.argv[1:])
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
while os.getppid() == launcher:
    time.sleep(0.2)
for number in (signal.SIGTERM, signal.SIGKILL):
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)
    time.sleep(grace_seconds)
' $$ "$grace_seconds" "${pids[@]}" >/dev/null 2>&1 &
watcher=$!
trap 'kill -KILL "$watcher" 2>/dev/null || true' EXIT

# The shell is asked again and again which of them are left: `wait -n` misses what ends while it is
# not waiting, and cannot tell the end of a process from a signal to the launcher.
status=0
failed_at=
while ((${#pids[@]})); do
  running=()
  for pid in "${pids[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      running+=("$pid")
      continue
    fi
    code=0
    wait "$pid" || code=$?
    if ((code != 0 && status == 0)); then
      status=$code
      failed_at=$SECONDS
      if ((code != 2 && code != 130 && code != 143)); then
        echo "error: process $pid of this run ended with exit code $code; the others end with it, and" \
          "the same command continues from the last checkpoint" >&2
      fi
    fi
  done
  pids=(${running[@]+"${running[@]}"})
  if ((status != 0 && ${#pids[@]} && SECONDS - failed_at > grace_seconds)); then
    # SIGTERM would ask them to save, for which they need the process that has failed.
    kill -KILL "${pids[@]}" 2>/dev/null || true
  fi
  # In the background, because the shell runs the trap between commands, or while it waits.
  sleep 0.2 &
  wait $! || true
done
exit "$status"
