# make demo    the whole study on synthetic patients, with its report
# make demo-budget     a study of annotation budgets on synthetic patients
# make demo-annotate   JupyterLab with notebook 08: two synthetic patients of the finished demo, to annotate by hand
# make study STUDY=mine           a study of your own; PROFILE=slurm: as jobs on a cluster
# make status STUDY=mine          the state of every network on every fold
# make install only the environment, in .venv: about 2 minutes and 2.5 GB
# make brain-extraction   the programs that `brain: deepbet` and `brain: hd_bet` need (300 MB)
# make test    the tests, with a small study from images to report
# make test LANDING=1  what CI runs: also the cluster, JupyterLab and reports in a browser, notebooks 03b and 06, DICOM
# make test SLOW=1     also those but for the cluster, and further studies, some of real data
# make test-cluster    a study on a SLURM with one node, which it starts (as root)
# make test-gpu        tests on this machine's GPU
# make gpu-check       the same and the speed of training there (PART=gpu), within 8 minutes together
# make lab     JupyterLab; the first time it fetches the files of itkwidgets' viewer (120 MB)
# make lint    code style, import layers, notebooks without outputs
# make size    files, lines and lines of code of each room
# make bench   speed, compared with another way
# make clean   deletes results (runs/, reports/) but for masks drawn by hand and verdicts, not the environment

PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
# the tested versions, also of indirect dependencies
# Python compiles a module when it is first imported: most never are
INSTALL := $(BIN)/pip install --quiet --no-compile --disable-pip-version-check --constraint requirements.lock
STUDY ?= demo
PROFILE ?= default
export STUDY PROFILE

.PHONY: install brain-extraction demo demo-budget demo-annotate test test-cluster test-gpu gpu-check lab lint size bench clean study status

install: $(READY)

brain-extraction: $(READY)
	$(INSTALL) --editable '.[brain-extraction]'

demo: $(READY)
	@$(MAKE) --no-print-directory study STUDY=demo

demo-budget: $(READY)
	@$(MAKE) --no-print-directory study STUDY=demo_budget

demo-annotate: $(READY)
	@echo "in the page, choose Run > Run All Cells"
	$(BIN)/jupyter lab --notebook-dir=. --LabApp.app_settings_dir=workflow/jupyterlab notebooks/08_annotate.ipynb

study: $(READY)
	@$(BIN)/python -m metaseg_nb study --study "$$STUDY" --profile "$$PROFILE"

status: $(READY)
	@$(BIN)/python -m metaseg_nb status --study "$$STUDY"

# processes with one thread each take half the time of one process with two; a third uses the time that browsers and locks
# keep the others waiting, a fourth that of the cluster; tests/conftest.py orders the tests; passive: where a test has more
# threads than cores are free, those that wait do not keep the others from a core
test: $(READY)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(if $(LANDING),4,3) \
		--dist loadgroup --no-loadscope-reorder -m 'not gpu and $(if $(LANDING),(not slow or landing),not cluster$(if $(SLOW),, and not slow))'

# needs slurmctld, slurmd, slurm-client and munge; .ci/run installs them
test-cluster: $(READY)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -m cluster tests/cluster

test-gpu: $(READY)
	$(BIN)/python -m pytest -m gpu tests/gpu

# what has not ended then is stopped, and says how far it came
gpu-check: $(READY)
	@$(BIN)/python -c "import sys, torch; torch.cuda.is_available() or sys.exit('no GPU is visible here: nothing was checked')"
	@failed=0; \
	timeout --signal=INT --kill-after=10 240 $(BIN)/python -m pytest -m gpu tests/gpu || failed=1; \
	BENCH_MINUTES=2 timeout --signal=INT --kill-after=10 210 $(BIN)/python benchmarks/gpu.py || failed=1; \
	exit $$failed

lab: $(READY)
	$(BIN)/python -m metaseg_nb itkwidgets-offline
	$(BIN)/jupyter lab --notebook-dir=. --LabApp.app_settings_dir=workflow/jupyterlab notebooks

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(BIN)/python -m pytest tests/test_notebooks.py

size:
	@$(PYTHON) benchmarks/size.py

# make bench PART=metrics runs one part; nnunet (an hour and more), then choosing; planted and scaling: only if they are named
PART ?= metrics contours exploration bias_field registration preprocessing patches step gpu inference
bench: $(READY)
	@set -e; for part in $(PART); do echo "== $$part"; $(BIN)/python benchmarks/$$part.py; done

clean:
	rm -rf reports .snakemake
	[ ! -d runs ] || find runs ! -type d ! -path '*/annotations_by_hand/*' ! -path '*/review/verdicts.csv' -delete
	[ ! -d runs ] || find runs -depth -type d -empty -delete

$(READY): pyproject.toml requirements.lock
	@echo "installing into .venv; this takes some minutes"
	$(PYTHON) -m venv .venv
	$(INSTALL) --upgrade pip==26.3  # takes two thirds of the time of Debian's
	$(INSTALL) torch==2.13.0
	$(INSTALL) --editable '.[dev]'
	$(BIN)/jupyter labextension disable imjoy-jupyterlab-extension  # it asks other machines until `make lab` has local copies
	@touch $@
