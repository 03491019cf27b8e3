# make setup   virtual environment in .venv with MPI, torch, Horovod and sciml_hpc (modules/install-stack.sh says how
#              to choose them); seconds where it was compiled before, about ten minutes where not
# make run     CloudMask on two ranks, from the embedded data to the verdict
# make test    all tests: one process, two and four ranks, and a Slurm cluster of four nodes on this machine
# make bench   is it the machine that is measured, or the benchmark? Ratios, side by side; wants a quiet machine
# make lint    ruff and shellcheck
# make clean   removes what these made, but for data and results

SHELL := /bin/bash
VENV := $(CURDIR)/.venv
python := $(VENV)/bin/python
pytest := $(python) -m pytest --timeout=300 --timeout-method=thread
# Open MPI would refuse to start as root, or more ranks than cores, and would bind two ranks to one core each.
on_any_machine := PATH="$(VENV)/bin:$$PATH" OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
	OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1 \
	PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe PRTE_MCA_hwloc_default_binding_policy=none

.PHONY: setup run test bench lint clean

setup:
	@VENV="$(VENV)" PACKAGE="-e .[test,report]" modules/install-stack.sh

run: setup
	$(on_any_machine) mpirun -n 2 python -m sciml_hpc cloudmask

test: setup
	tests/cluster/install-tools.sh
	timeout --kill-after=30 1800 $(pytest) -m "not mpi and not cluster"
	$(on_any_machine) tests/ranks.sh 2
	$(on_any_machine) tests/ranks.sh 4
	timeout --kill-after=30 1800 $(pytest) -m cluster $(if $(CI),--require-cluster)

bench: setup
	$(on_any_machine) PYTHONPATH=tests $(python) -m bench.run --json bench.json $(PARTS)

lint: setup
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	@if command -v shellcheck >/dev/null; then git grep -lz '^#!/bin/bash' | xargs -0 shellcheck; \
	else echo "shellcheck is not installed: shell scripts not checked"; fi

clean:
	rm -rf "$(VENV)" build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './data/*' -prune -exec rm -rf {} +
