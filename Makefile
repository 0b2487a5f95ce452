# make demo | test | test-fast | faults | audit | lab | lint: each sets up what it needs; a repeated call redoes what is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-fast faults audit lab lint

demo: $(READY)
	$(BIN)/python -m lib.batch params/demo --jobs 2
	@echo "open outputs/demo/report.html"

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Without the tests that take over two seconds.
test-fast: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

# Damaged and hostile files, full disks, killed processes: what was injected and what was lost.
faults: $(READY)
	FAULTS=full $(BIN)/python -m pytest tests/faults tests/runs

# Known holes in what is installed; packages that are not on the index it asks are listed as skipped.
audit: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip-audit>=2.7,<3"
	$(BIN)/pip-audit --local --skip-editable --desc off

lab: $(READY)
	$(BIN)/jupyter lab notebooks

lint: $(READY)
	$(BIN)/ruff check lib tests benchmarks notebooks
	$(BIN)/ruff format --check lib tests benchmarks notebooks
	$(BIN)/nbstripout --verify --extra-keys "metadata.papermill cell.metadata.papermill" notebooks/*.ipynb

# The marker is as new as pyproject.toml, so that changed dependencies are installed again.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  (echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" && false)
	@echo "making $(VENV) and installing (a few minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	touch $(READY)
