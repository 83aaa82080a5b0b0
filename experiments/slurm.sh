#!/usr/bin/env bash
# One run on several nodes under Slurm, a process for each GPU:
#
#     sbatch experiments/slurm.sh experiments/paper/moral_tinyllama.yaml
#
# What follows the file are settings, as for `lifelong run`. After a limit of time the same command goes on with the
# run after its last finished stage, as long as its settings, devices among them, are the same.
#SBATCH --job-name=lifelong
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --output=%x-%j.out

set -euo pipefail

# the environment, and the folder of runs (./runs), are on a file system that all nodes see
source .venv/bin/activate

# compute nodes often have no way out: load models and rows before, on a node that has
export HF_HUB_OFFLINE=1

# --kill-on-bad-exit ends all processes when one fails, which would otherwise wait for it
srun --kill-on-bad-exit=1 lifelong run "$@" \
    --trainer.accelerator gpu \
    --trainer.strategy ddp \
    --trainer.devices "$SLURM_NTASKS_PER_NODE" \
    --trainer.num_nodes "$SLURM_JOB_NUM_NODES"
