#!/bin/bash
# A benchmark under Flux. What follows the script's name goes to sciml_hpc:
#
#   module use modules/lmod && module load sciml_hpc
#   flux batch -N 64 jobscripts/flux/sciml_hpc.flux --preset full --data /lustre/sciml
#   RANKS_PER_NODE=8 flux batch -N 16 jobscripts/flux/sciml_hpc.flux --preset node
#
# Variables: RANKS_PER_NODE=N  (one per GPU, or one on CPUs)
#            BENCHMARK=NAME    (cloudmask)
#            OUTPUT=DIR        for results (results/job-<id>); a checkpoint in it is gone on from
#            PACKED=FILE       packed by modules/pack-environment.sh; each node unpacks it (from about 64 nodes on)
#
# Add what your centre wants: --bank, --queue.
# flux: --job-name=sciml_hpc
# flux: --nodes=4
# flux: --exclusive
# flux: --time-limit=1h
# flux: --output=sciml_hpc-{{id.dec}}.log
# Two minutes before the time limit, a warning to the ranks: they make a checkpoint at the same step and end the run.
# Flux does not start a job again by itself; submitted again with the same OUTPUT, it goes on.
# flux: --signal=USR1@2m
set -euo pipefail

id=$(flux job id --to=dec "$FLUX_ENCLOSING_ID")
OUTPUT=${OUTPUT:-results/job-$id}
mkdir -p "$OUTPUT"

read -r nodes gpus < <(flux resource list --states=up --no-header --format='{nnodes} {ngpus}')
per_node=${RANKS_PER_NODE:-$((gpus > nodes ? gpus / nodes : 1))}

# Node-local storage: ours below TMPDIR or /tmp, removed at the end.
local=${TMPDIR:-/tmp}/sciml_hpc-$id
flux exec --noinput mkdir -p "$local"
trap 'flux exec --noinput rm -rf "$local"' EXIT

# Python from node-local storage: each node reads one file.
python=(python)
if [[ -n ${PACKED-} ]]; then
    # shellcheck disable=SC2016 # expanded on the nodes
    flux exec --noinput sh -c 'mkdir -p "$1/env" && tar -xf "$2" -C "$1/env" && "$1/env/relocate"' sh "$local" "$(realpath "$PACKED")"
    # PYTHONSAFEPATH: or Python would prefer the sciml_hpc in the working directory
    python=(env PYTHONSAFEPATH=1 "$local/env/bin/python")
fi

resume=()
[[ -z $(find "$OUTPUT" -name 'result_*.checkpoint' -print -quit) ]] || resume=(--resume)

# The warning reaches this shell too, which has to outlive it, and everything in its process group. `flux run` would pass
# it to the ranks, which have had theirs, and a second one ends a rank at once: so it gets a group of its own.
trap : USR1

# cpu-affinity: each rank gets its share of the node's cores. gpu-affinity stays as it is: ranks see all GPUs of their node
# and take one each by local rank, because NCCL's direct copies between two GPUs need both in sight.
# exit-on-error: a rank that fails ends the others, which would wait for it.
status=0
setsid --wait flux run --nodes="$nodes" --tasks-per-node="$per_node" --exclusive -o cpu-affinity=per-task -o exit-on-error \
    "${python[@]}" -m sciml_hpc "${BENCHMARK:-cloudmask}" \
    --scratch "$local" --output "$OUTPUT" "${resume[@]}" "$@" || status=$?

if [[ -n $(find "$OUTPUT" -name 'result_*.checkpoint' -print -quit) ]]; then
    echo "a checkpoint is in $OUTPUT: the same flux batch command with OUTPUT=$OUTPUT before it goes on from there"
fi
exit "$status"
