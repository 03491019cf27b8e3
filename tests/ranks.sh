#!/bin/bash
# The tests marked `mpi` on N ranks: ranks.sh N [pytest arguments]. The output of rank 0 is printed as it comes; that of
# the others after a failure. A failure on any rank fails all, and a hang ends.
set -uo pipefail
ranks=${1:?how many ranks?}
shift
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
export logs
[[ -t 1 ]] || export PY_COLORS=0 # mpirun gives ranks a terminal of their own

# shellcheck disable=SC2016 # expanded on each rank
timeout --kill-after=30 1200 mpirun -n "$ranks" bash -c '
    rank=${OMPI_COMM_WORLD_RANK-${PMI_RANK-${SLURM_PROCID?no rank in the environment}}}
    ((rank == 0)) || exec "$@" -p no:cacheprovider >"$logs/$rank" 2>&1
    exec "$@"' on_rank \
    python -m pytest --with-mpi -m mpi --timeout=300 --timeout-method=thread "$@"
status=$?
if ((status != 0)); then
    for ((rank = 1; rank < ranks; rank++)); do
        echo "==================== rank $rank ===================="
        tail -n 100 "$logs/$rank"
    done
    ((status != 124)) || echo "ended: no end after 1200 s"
    echo "ranks.sh: failed on $ranks ranks (status $status)"
fi
exit $status
