# make demo | test | test-fast | faults | audit | lab | docs | lint | update-lock
# Each sets up what it needs; a repeated call redoes what is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# `make LOCK= …` installs the newest versions in the ranges of pyproject.toml instead.
LOCK ?= requirements.lock
# `make update-lock UPGRADE=` changes only what pyproject.toml no longer allows.
UPGRADE ?= --upgrade

.PHONY: demo test test-fast faults audit lab docs lint update-lock

demo: $(READY)
	$(BIN)/python -m lib.batch params/demo --jobs 2
	@echo "open outputs/demo/report.html"

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Without the slow tests.
test-fast: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

# Damaged and hostile files, full disks, killed processes: what was injected and what was lost.
faults: $(READY)
	FAULTS=full $(BIN)/python -m pytest tests/faults tests/runs

# Known holes in what is installed; packages that are not on the index it asks are listed as skipped.
audit: $(READY)
	$(PIP) "pip-audit>=2.7,<3"
	$(BIN)/pip-audit --local --skip-editable --desc off

# LAB: further options of JupyterLab.
lab: $(READY)
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks $(LAB)

# README, executed notebooks, the demo's report, the guides and an API page, in docs/_site.
docs: demo
	$(BIN)/python -m docs.build_site
	@echo "open docs/_site/index.html"

lint: $(READY)
	$(BIN)/ruff check lib tests benchmarks notebooks docs
	$(BIN)/ruff format --check lib tests benchmarks notebooks docs
	$(BIN)/nbstripout --verify --extra-keys "metadata.papermill cell.metadata.papermill" notebooks/*.ipynb

# One version of each package for Python 3.11 and later, with hashes, without the address of an index.
# The extra `test` has all others, except those of services (trackio, wandb, mlflow).
update-lock: $(READY)
	$(PYTHON) -m venv $(VENV)/uv
	$(VENV)/uv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"
	$(VENV)/uv/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --extra test \
	  --generate-hashes --no-strip-extras --no-emit-index-url --no-annotate \
	  --custom-compile-command "make update-lock" \
	  $(UPGRADE) --output-file requirements.lock

# The marker is newer than both files, so that changed dependencies are installed again.
$(READY): pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  (echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" && false)
	@echo "creating $(VENV) and installing (a few minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(if $(LOCK),$(PIP) --require-hashes -r $(LOCK))
	$(PIP) $(if $(LOCK),--no-deps --no-build-isolation -e .,-e ".[test]")
	touch $(READY)
