#!/usr/bin/env bash
# One training run on SLURM, a process per GPU.
#
#   sbatch --nodes=2 --gpus-per-node=8 launch/slurm.sh --config=configs/r34.py --workdir=runs/r34
#
# Differs from launch/local.sh only in how the processes find each other: JAX reads SLURM's own
# variables. Submit the same line again to continue: SIGTERM comes before the time limit, the run
# saves and ends, and --requeue starts it again from there.
#SBATCH --job-name=yolov1_jax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --output=%x-%j.log
set -euo pipefail

srun --gpus-per-task=1 --kill-on-bad-exit=1 python -m yolov1_jax.main "$@" --distributed
