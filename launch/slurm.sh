#!/usr/bin/env bash
# Eight nodes of eight GPUs under SLURM:  sbatch launch/slurm.sh experiments/ablation.yaml [a.b=c ...]
#
# One torchrun a node; they meet at the first node. The output folder must be one that all nodes see. A node that dies
# ends the step, and torchrun starts all ranks again from the last checkpoint (MAX_RESTARTS times); ten minutes before
# the time is up SLURM sends SIGTERM, all ranks save within a step, and the job queues itself again.
#SBATCH --job-name=anastyle
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=8 HF_HUB_OFFLINE=1 ANASTYLE_RANK_TIMEOUT=180
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # torchrun's own would still hold the addresses of ranks that died

trap 'kill -TERM "$steps"; wait "$steps"; scontrol requeue "$SLURM_JOB_ID"; exit 0' TERM

srun --kill-on-bad-exit=1 torchrun \
  --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node 8 --max-restarts "${MAX_RESTARTS:-3}" \
  --rdzv-backend c10d --rdzv-endpoint "$head:29500" --rdzv-id "$SLURM_JOB_ID" \
  launch/run.py "$@" &
steps=$!
wait "$steps"
