# make demo    the whole study on synthetic patients, with its report
# make demo-budget     with how few annotations? a study of annotation budgets on synthetic patients
# make study STUDY=mine           another study; PROFILE=slurm: as jobs of a cluster
# make status STUDY=mine          where every network on every fold stands
# make install the environment alone, in .venv: about 2 minutes and 2.5 GB
# make test    the test suite
# make test-cluster    a study on a one-node SLURM that is started here (as root)
# make test-gpu        the same networks, resumed runs and notebooks on this machine's GPU
# make lab     JupyterLab on the notebooks; the first time with the files of itkwidgets' viewer, from npm's registry
# make lint    code and notebook style, import layers, no outputs committed
# make size    the package's files, lines and lines of code, by room
# make bench   speed, as ratios against a named other way
# make clean   removes what running made (runs/, reports/), not the environment

PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
# the versions that were tested, of packages that others need too
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock
STUDY ?= demo
PROFILE ?= default
export STUDY PROFILE

.PHONY: install demo demo-budget test test-cluster test-gpu lab lint size bench clean study status

install: $(READY)

demo: $(READY)
	@$(MAKE) --no-print-directory study STUDY=demo

demo-budget: $(READY)
	@$(MAKE) --no-print-directory study STUDY=demo_budget

study: $(READY)
	@$(BIN)/python -m metaseg_nb study --study "$$STUDY" --profile "$$PROFILE"

status: $(READY)
	@$(BIN)/python -m metaseg_nb status --study "$$STUDY"

# two processes of one thread each: half the time of one process with two
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

# needs slurmctld slurmd slurm-client munge, which .ci/run installs
test-cluster: $(READY)
	$(BIN)/python -m pytest -m cluster tests/cluster

test-gpu: $(READY)
	$(BIN)/python -m pytest -m gpu tests/gpu

lab: $(READY)
	$(BIN)/python -m metaseg_nb itkwidgets-offline
	$(BIN)/jupyter lab --notebook-dir=. --LabApp.app_settings_dir=workflow/jupyterlab notebooks

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/test_notebooks.py

size:
	@$(PYTHON) benchmarks/size.py

# make bench PART=metrics runs one of them
PART ?= metrics exploration bias_field preprocessing patches step gpu inference
bench: $(READY)
	@set -e; for part in $(PART); do echo "== $$part"; $(BIN)/python benchmarks/$$part.py; done

clean:
	rm -rf runs reports .snakemake

$(READY): pyproject.toml requirements.lock
	@echo "installing into .venv; this takes some minutes"
	$(PYTHON) -m venv .venv
	$(INSTALL) torch==2.13.0
	$(INSTALL) --editable '.[dev]'
	$(BIN)/jupyter labextension disable imjoy-jupyterlab-extension  # it asks other machines, until `make lab` has copies
	@touch $@
