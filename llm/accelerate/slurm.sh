#!/bin/bash
# A run on several nodes. srun starts one launcher on each, and that one process for every GPU of its node:
#
#   sbatch --nodes 4 --gpus-per-node 8 slurm.sh train reward --config reward-gemma-2b --train_file pairs.jsonl \
#     --output_dir /shared/runs/gemma --ambiguity tv:0.2 --dataloader_drop_last true --bf16
#
# Submit the same line again to go on where the time was up: --resume is added, and does nothing to a new run. Of several
# submitted at once each waits for the one before (--dependency singleton, by job name). The output folder must be on a
# file system that all nodes see. Variables that may be set before sbatch:
#
#   CONFIG      cpu, ddp (default), fsdp2, zero2, zero3, or a file of your own
#   PROCESSES   on each node; by default its GPUs
#   PYTHON      the interpreter, the same on all nodes
#
# What your site must set, as options of sbatch or in lines like those below:
#
#   --account, --partition, --qos   whose hours these are, and where
#   --constraint                    which GPUs, where a partition has several kinds
#   --time                          as the partition allows
#   --cpus-per-task                 the cores of a node, for all of its processes: 16 are few for 8 GPUs
#
# and what a shell on a node must load before Python starts (module load ..., NCCL_SOCKET_IFNAME), at the mark below.
#
#SBATCH --job-name robust-rlhf
#SBATCH --nodes 2
#SBATCH --ntasks-per-node 1
#SBATCH --cpus-per-task 16
#SBATCH --time 24:00:00
#SBATCH --signal TERM@300
#SBATCH --dependency singleton
#SBATCH --requeue
#SBATCH --open-mode append
#
# --signal reaches the tasks of srun, 300 seconds before the end: the step at hand is finished, a checkpoint is written,
# and all processes end. Raise it for steps or checkpoints that take longer, and PET_SHUTDOWN_TIMEOUT with it: after so
# many seconds a launcher kills what has not ended. --requeue starts the job again after a node failed or another job
# took its place, not when its time was up; the log is appended to.
set -euo pipefail

# module load ...

export PYTHON=${PYTHON:-python} PET_SHUTDOWN_TIMEOUT=${PET_SHUTDOWN_TIMEOUT:-280}
PROCESSES=${PROCESSES:-${SLURM_GPUS_ON_NODE:?no GPUs were asked for: sbatch --gpus-per-node N, or set PROCESSES}}
[[ $PROCESSES =~ ^[1-9][0-9]*$ ]] || { echo "PROCESSES=$PROCESSES is no number of processes a node" >&2; exit 2; }
CONFIG=${CONFIG:-ddp}
if [ ! -f "$CONFIG" ]; then
  folder=$("$PYTHON" -c "from importlib.util import find_spec as f; print(*getattr(f('llm'), 'submodule_search_locations', ()))")
  [ -n "$folder" ] || { echo "PYTHON=$PYTHON has no robust-rlhf: activate its environment, or name its Python" >&2; exit 2; }
  if [ ! -f "$folder/accelerate/$CONFIG.yaml" ]; then
    echo "CONFIG=$CONFIG is no file, and none of" $(basename -s .yaml "$folder"/accelerate/*.yaml) >&2
    exit 2
  fi
  CONFIG=$folder/accelerate/$CONFIG.yaml
fi
export CONFIG ALL=$((SLURM_NNODES * PROCESSES)) PORT=$((20000 + SLURM_JOB_ID % 20000))
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export HEAD=${HEAD%%$'\n'*} # the first of them

# exec: the signal of the scheduler must reach the launcher, which passes it on, and not a shell around it.
# srun asks for cores by itself: it takes over nothing that sbatch was told of them.
exec srun --kill-on-bad-exit=0 --wait=300 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} bash -c 'exec "$PYTHON" -m accelerate.commands.accelerate_cli launch \
  --config_file "$CONFIG" --num_machines "$SLURM_NNODES" --num_processes "$ALL" --machine_rank "$SLURM_NODEID" \
  --main_process_ip "$HEAD" --main_process_port "$PORT" -m robust_rlhf "$@"' task "$@" --resume
