#!/bin/bash
# Installs what the tests' Slurm cluster needs, where that is possible: as root on a machine with apt-get.
# Otherwise says what is missing; the cluster tests are then skipped.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

missing=()
for tool in slurmctld slurmd srun munged ip unshare nsenter; do
    command -v $tool >/dev/null || missing+=("$tool")
done
# Slurm opens PMIx by its development name, which Debian's Slurm does not depend on
[[ $(ldconfig -p) == *"libpmix.so "* ]] || missing+=(libpmix.so)
((${#missing[@]})) || exit 0

if ((EUID == 0)) && command -v apt-get >/dev/null; then
    echo "cluster tests: installing Slurm, as these are missing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq --no-install-recommends slurm-wlm munge iproute2 libpmix-dev util-linux >/dev/null
else
    echo "cluster tests will be skipped: missing ${missing[*]}, and only root with apt-get can have them installed"
fi
