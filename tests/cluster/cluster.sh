#!/bin/bash
# A real Slurm cluster of N nodes on one machine, for tests. Needs root; needs no daemon, container engine or settings.
#
#   eval "$(cluster.sh up N)"      start node1 … nodeN; sets CLUSTER_DIR, which the commands below read
#   cluster.sh run CMD ...         on the login node: srun, sbatch, salloc, sinfo, mpirun …
#   cluster.sh on NODE CMD ...     on one node
#   cluster.sh kill NODE           power a node off
#   cluster.sh boot NODE           power it on again
#   cluster.sh down                end the cluster; nothing is left
#   cluster.sh serve N             like up, but in the foreground until standard input closes: a cluster that cannot
#                                  outlive the process holding the other end of that pipe, however it dies
#
# Before up or serve: CLUSTER_CPUS (cores per node as Slurm sees them, 4), CLUSTER_MEMORY_MIB (memory per node as Slurm
# sees it, 2000), CLUSTER_SCRATCH_MIB (size of each node-local file system, 1024), CLUSTER_GPUS (GPUs per node as Slurm
# sees them, 0; they are there for placement only). All nodes share this machine's cores, so timings mean nothing.
#
# How: the head (login node and controller) is one set of namespaces; each node is another set below it, with its own
# host name, network address, processes, /run, /dev/shm, and node-local $CLUSTER_DIR/local ($TMPDIR). The rest of the
# file system is shared, as on a cluster. The bridge lives in the head's network namespace, so clusters do not clash.
set -euo pipefail

SELF=$(readlink -f "$0")
NET=10.77 # /16, seen inside only
DIR_TEMPLATE=/tmp/slurm.XXXXXX # short: the name of a socket has at most 107 characters
UNSHARE=(unshare --mount --uts --ipc --net --pid --fork --kill-child)

die() { echo "cluster.sh: $*" >&2; exit 1; }

wait_until() { # SECONDS CMD...: until CMD succeeds
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.05
    done
}

enter() { # NODE CMD...: in its namespaces, working directory kept
    local pid
    pid=$(cat "$CLUSTER_DIR/$1/pid" 2>/dev/null) || die "$1 is not running (CLUSTER_DIR=$CLUSTER_DIR)"
    shift
    exec nsenter --target "$pid" --mount --uts --ipc --net --pid --wd="$PWD" -- "$@"
}

address() { echo "$NET.$(($1 / 250)).$(($1 % 250 + 1))"; } # of node $1; the head is number 0

configure() { # NODES: everything the daemons read
    local i gpus=${CLUSTER_GPUS:-0}
    mkdir -p "$CLUSTER_DIR/head" "$CLUSTER_DIR/controller" "$CLUSTER_DIR/local"
    (umask 077 && head -c 1024 /dev/urandom >"$CLUSTER_DIR/munge.key")
    {
        printf '127.0.0.1 localhost\n%s head\n' "$(address 0)"
        # the mapped form is what a dual-stack socket (torch's TCPStore) looks up
        for ((i = 1; i <= $1; i++)); do printf '%s node%d\n::ffff:%s node%d\n' "$(address "$i")" "$i" "$(address "$i")" "$i"; done
    } >"$CLUSTER_DIR/hosts"
    cat >"$CLUSTER_DIR/slurm.conf" <<-END
	ClusterName=test
	SlurmctldHost=head($(address 0))
	SlurmUser=root
	SlurmdUser=root
	AuthType=auth/munge
	StateSaveLocation=$CLUSTER_DIR/controller
	SlurmctldPidFile=$CLUSTER_DIR/head/slurmctld.pid
	SlurmctldLogFile=$CLUSTER_DIR/head/slurmctld.log
	SlurmdSpoolDir=$CLUSTER_DIR/%n/spool
	SlurmdPidFile=$CLUSTER_DIR/%n/slurmd.pid
	SlurmdLogFile=$CLUSTER_DIR/%n/slurmd.log
	TmpFS=$CLUSTER_DIR/local
	ProctrackType=proctrack/linuxproc
	TaskPlugin=task/none
	JobAcctGatherType=jobacct_gather/none
	SelectType=select/cons_tres
	SelectTypeParameters=CR_Core
	SlurmdParameters=config_overrides
	SchedulerParameters=sched_interval=1,batch_sched_delay=0
	MpiDefault=pmix
	ReturnToService=2
	SlurmdTimeout=10
	MessageTimeout=30
	KillWait=2
	$( ((gpus == 0)) || echo GresTypes=gpu)
	NodeName=node[1-$1] CPUs=${CLUSTER_CPUS:-4} RealMemory=${CLUSTER_MEMORY_MIB:-2000} Gres=$( ((gpus == 0)) || echo "gpu:$gpus") State=UNKNOWN
	PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
	END
    # each GPU needs a device file of its own to become CUDA_VISIBLE_DEVICES; nothing opens it
    ((gpus == 0)) || echo "NodeName=node[1-$1] Name=gpu File=/dev/tty[1-$gpus]" >"$CLUSTER_DIR/gres.conf"
    # No plugin used here needs cgroups, but slurmd looks at them, and dies on a mixture of versions 1 and 2.
    if [[ $(slurmd -V) =~ \ 2[0-2]\. ]]; then echo CgroupPlugin=cgroup/v1; else echo CgroupPlugin=disabled; fi >"$CLUSTER_DIR/cgroup.conf"
    # Slurm's PMIx server would offer munge, which the PMIx client inside a binary Open MPI has not got
    echo PMIxEnv=PMIX_MCA_psec=native >"$CLUSTER_DIR/mpi.conf"
}

become() { # NAME: give the namespaces this process was started in what makes them a host of the cluster
    local pid
    mkdir -p "$CLUSTER_DIR/$1/spool"
    read -r pid _ </proc/self/stat # /proc is still the parent's: this is the number by which nsenter finds us
    hostname "$1"
    mount -t proc proc /proc
    mount --rbind /sys/fs/cgroup "$CLUSTER_DIR/local"
    mount -t sysfs sysfs /sys # /sys/class/net shows this host's interfaces only …
    mount --move "$CLUSTER_DIR/local" /sys/fs/cgroup # … and the machine's control groups stay
    mount --bind "$CLUSTER_DIR/hosts" /etc/hosts
    mount -t tmpfs "shm-$1" /dev/shm
    mount -t tmpfs -o "size=${CLUSTER_SCRATCH_MIB:-1024}m" "local-$1" "$CLUSTER_DIR/local"
    mount -t tmpfs "run-$1" /run
    mkdir -p /run/munge /run/lock
    munged --num-threads=1 --key-file="$CLUSTER_DIR/munge.key" --socket=/run/munge/munge.socket.2 \
        --pid-file=/run/munge/munged.pid --log-file="$CLUSTER_DIR/$1/munged.log" --seed-file="$CLUSTER_DIR/$1/munged.seed"
    ip link set lo up
    echo "$pid" >"$CLUSTER_DIR/$1/pid"
}

head_init() { # NODES: process 1 of the head
    local i
    become head
    ip link add br0 type bridge
    ip addr add "$(address 0)/16" dev br0
    ip link set br0 up
    touch "$CLUSTER_DIR/head/net"
    mount --bind /proc/self/ns/net "$CLUSTER_DIR/head/net" # a handle by which nodes plug their cable in
    slurmctld -c
    for ((i = 1; i <= $1; i++)); do boot "node$i"; done
    # Not `read` itself: a shell that waits reaps the orphans that process 1 inherits.
    { read -r _; } <&3 &
    wait $!
}

node_init() { # NODE: process 1 of a node
    ip link add eth0 type veth peer name "v-$1" netns "$CLUSTER_DIR/head/net"
    nsenter --net="$CLUSTER_DIR/head/net" ip link set "v-$1" master br0 up
    ip addr add "$(address "${1#node}")/16" dev eth0
    ip link set eth0 up
    become "$1"
    slurmd -N "$1"
    sleep infinity &
    wait $!
}

boot() { # NODE: called in the head's namespaces
    rm -f "$CLUSTER_DIR/$1/slurmd.pid"
    mkdir -p "$CLUSTER_DIR/$1"
    setsid "${UNSHARE[@]}" "$SELF" _node "$1" </dev/null >>"$CLUSTER_DIR/$1/init.log" 2>&1 3<&- &
}

idle_nodes() { "$SELF" run sinfo -h -N -t idle -o '%N %t' 2>/dev/null | awk '$2 == "idle"' | sort -u; }
all_idle() { (($(idle_nodes | wc -l) == $1)); }
is_up() { [[ -s $CLUSTER_DIR/$1/slurmd.pid ]] && idle_nodes | grep -qx "$1 idle"; }
gone() { [[ ! -e $1 ]]; }

power_off() { # of serve: KILL, as unshare ignores TERM; --kill-child then ends the head's process 1, and so all others
    kill -KILL %1 2>/dev/null || true
    wait
    rm -rf "$CLUSTER_DIR"
}

serve() { # NODES [DIR]
    [[ $1 =~ ^[1-9][0-9]*$ ]] || die "how many nodes? $1"
    ((EUID == 0)) || die "needs root"
    CLUSTER_DIR=${2:-$(mktemp -d "$DIR_TEMPLATE")}
    chmod 755 "$CLUSTER_DIR"
    configure "$1"
    "${UNSHARE[@]}" "$SELF" _head "$1" 3<&0 </dev/null >"$CLUSTER_DIR/head/init.log" 2>&1 &
    trap power_off EXIT
    if ! wait_until $((20 + $1)) all_idle "$1"; then
        tail -n 20 "$CLUSTER_DIR"/*/*.log >&2
        die "not all of $1 nodes came up"
    fi
    "$SELF" run srun -N "$1" true >&2 || die "the nodes are idle, but srun fails"
    echo "export CLUSTER_DIR=$CLUSTER_DIR"
    exec >/dev/null 2>&1 # whoever reads these must not wait for the cluster's end
    wait %1
}

up() { # NODES
    CLUSTER_DIR=$(mktemp -d "$DIR_TEMPLATE")
    mkfifo "$CLUSTER_DIR/leash"
    # opened for reading and writing, the pipe never closes: `down` ends the cluster by writing to it
    setsid "$SELF" serve "$1" "$CLUSTER_DIR" 0<>"$CLUSTER_DIR/leash" >"$CLUSTER_DIR/ready" &
    until [[ -s $CLUSTER_DIR/ready ]]; do kill -0 $! 2>/dev/null || exit 1; sleep 0.05; done
    cat "$CLUSTER_DIR/ready"
}

command=${1:-help}
shift || true
case $command in up | serve | help) ;; *) [[ -d ${CLUSTER_DIR:?set it: eval "\$(cluster.sh up 4)"} ]] || die "no cluster in $CLUSTER_DIR" ;; esac
export CLUSTER_DIR SLURM_CONF=${CLUSTER_DIR-}/slurm.conf TMPDIR=${CLUSTER_DIR-}/local
# More ranks than cores: a rank that waits must yield its core, and one thread per rank is enough.
export OMPI_MCA_mpi_yield_when_idle=${OMPI_MCA_mpi_yield_when_idle-1} OMP_NUM_THREADS=${OMP_NUM_THREADS-1}
case $command in
    up) up "${1:?how many nodes?}" ;;
    serve) serve "${1:?how many nodes?}" "${@:2}" ;;
    run) enter head "$@" ;;
    on) "$SELF" run "$SELF" _on "$@" ;;
    kill) "$SELF" run "$SELF" _kill "$1" ;;
    boot)
        "$SELF" run "$SELF" _boot "$1"
        wait_until 60 is_up "$1" || die "$1 did not come up"
        ;;
    down)
        echo 1<>"$CLUSTER_DIR/leash"
        wait_until 20 gone "$CLUSTER_DIR" || die "did not end"
        ;;
    _head) head_init "$1" ;;
    _node) node_init "$1" ;;
    _on) enter "$@" ;;
    _kill) kill -KILL "$(cat "$CLUSTER_DIR/$1/pid")" && rm "$CLUSTER_DIR/$1/pid" ;;
    _boot) boot "$1" ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$SELF" && exit 2 ;;
esac
