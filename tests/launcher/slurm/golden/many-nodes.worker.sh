#!/bin/bash
# What one task of a step does; the batch script starts it as `worker.sh ROLE [OPTION]...`.
#   check   look at this node before training
#   node    start this node's ranks with torchrun
#   task    be one rank, started by srun itself
#   rank    be one rank, started by torchrun
# shellcheck disable=SC2016 # quoted text is meant literally
set -uo pipefail

run=/shared/runs/first
python=/shared/venv/bin/python
export PYTHONUNBUFFERED=1
export PYTHONFAULTHANDLER=1
export NCCL_DEBUG=WARN
export TORCH_NCCL_ASYNC_ERROR_HANDLING=3
export TORCH_NCCL_DUMP_ON_TIMEOUT=1
export TORCH_FR_BUFFER_SIZE=2000
export OMP_NUM_THREADS=1
export NCCL_DEBUG_FILE='/shared/runs/first/logs/nccl-%h-%p.log'
export TORCH_FR_DUMP_TEMP_FILE=/shared/runs/first/logs/flight-recorder-

# An ignored signal stays ignored by what is started here, until the trainer sets its own handler: torchrun
# itself survives the request to stop that is meant for its ranks.
trap '' USR1

now() { # without date where a signal that is meant for the rank ends it
    date +%s.%N || printf '%(%s)T' -1
}

be_rank() {
    if [[ -n ${CUBOID_COLLECTIVE:-} ]]; then
        exec "$python" -P -m runtime.collective_check --folder "$run/preflight/$CUBOID_ATTEMPT"
    fi
    local mine=$CUBOID_RANKS/rank-$RANK log=$run/logs/rank-$RANK.log child status interrupted
    printf 'started %s %s %s\n' "$(now)" "$(uname -n)" "$$" >"$mine"
    printf -- '--- attempt %s, rank %s, host %s\n' "$CUBOID_ATTEMPT" "$RANK" "$(uname -n)" >>"$log"
    "$python" -P -m runtime.train --job "$run/job.yaml" --run "$run" "$@" >>"$log" 2>&1 &
    child=$!
    # SIGTERM comes to the whole process group; this shell stays to write down how the rank ended.
    trap 'interrupted=1' TERM
    while :; do
        interrupted=0
        wait "$child"
        status=$?
        ((interrupted)) || break
    done
    printf 'ended %s %s\n' "$(now)" "$status" >>"$mine"
    exit "$status"
}

end_ranks() { # that outlived torchrun: they hold the step's output open, and SLURM would wait a minute for it
    local file host pid
    for file in "$CUBOID_RANKS"/rank-*; do
        read -r _ _ host pid <"$file" 2>/dev/null || continue
        [[ $host == "$(uname -n)" ]] && ! grep -q '^ended' "$file" && kill -KILL -- "-$pid" 2>/dev/null
    done
}

role=$1
shift
case $role in
    check)
        exec "$python" -P -m launcher.preflight check --run "$run" --folder "$run/preflight/$CUBOID_ATTEMPT" ;;
    node)
        # SLURM sends SIGTERM to every process. Passed on by torchrun too it would come twice, and the trainer
        # takes the second one for impatience.
        trap '' TERM
        mine=$CUBOID_RANKS/node-$SLURM_NODEID
        printf 'started %s %s %s\n' "$(now)" "$(uname -n)" "$$" >"$mine"
        "$python" -P -m torch.distributed.run --nnodes="$CUBOID_NODES" --nproc-per-node=8 \
            --node-rank="$SLURM_NODEID" --rdzv-backend=static --master-addr="$MASTER_ADDR" \
            --master-port="$MASTER_PORT" --max-restarts=0 --signals-to-handle=SIGINT,SIGHUP --no-python \
            bash "$run/launch/worker.sh" rank "$@"
        status=$?
        printf 'ended %s %s\n' "$(now)" "$status" >>"$mine"
        end_ranks
        exit "$status" ;;
    task)
        export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=8
        be_rank "$@" ;;
    rank)
        be_rank "$@" ;;
    *)
        printf 'worker.sh: no such role: %s\n' "$role" >&2
        exit 2 ;;
esac
