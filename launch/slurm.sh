#!/usr/bin/env bash
# One training run on SLURM, a process per GPU: --ntasks-per-node is the number of GPUs of a node.
#
#   sbatch --nodes=2 --gpus-per-node=4 --ntasks-per-node=4 launch/slurm.sh --config=configs/r34.py --workdir=runs/r34
#
# Differs from launch/local.sh only in how the processes find each other: JAX reads SLURM's own
# variables. Submit the same line again to continue: SIGTERM comes before the time limit, and the run
# saves and ends. After a preemption or the failure of a node, --requeue does that by itself.
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

# Every process has to see all GPUs of its node: JAX takes the one of its SLURM_LOCALID. srun does not
# inherit the number of CPUs from sbatch.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 python -m yolov1_jax.main "$@" --distributed
