# Every target sets up what it needs; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_TO_TEST := $(VENV)/.ready-to-test
READY_FOR_DOCS := $(VENV)/.ready-for-docs
WITH_TORCH := .venv-torch
READY_WITH_TORCH := $(WITH_TORCH)/.ready
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check -c constraints.txt
INSTALL := $(BIN)/python $(PIP_INSTALL)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev torch-env docs wheel quickstart test test-slow test-faults test-torch test-all lint bench reproduce report clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(READY) ## Make .venv with all that cbundles needs (plain pip, Python 3.11 or newer)

setup-dev: $(READY_TO_TEST) ## Add what the tests need, TensorFlow among it

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "cbundles needs Python 3.11 or newer; try: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	@if [ -e /dev/nvidia0 ]; then \
		echo "There is an NVIDIA card here. To use it: $(BIN)/pip install -e '.[cuda]'"; fi
	@touch $@

$(READY_TO_TEST): $(READY)
	$(INSTALL) -e '.[prepare,dev]'
	@touch $@

# PyTorch has an environment of its own: it is large, and TensorFlow is not needed beside it.
torch-env: $(READY_WITH_TORCH) ## Make .venv-torch, in which modules of PyTorch are audited

$(READY_WITH_TORCH): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(WITH_TORCH)
	$(WITH_TORCH)/bin/python $(PIP_INSTALL) -e '.[torch,dev]'
	@touch $@

# Warnings are errors, and examples are run.
docs: $(READY_FOR_DOCS) ## Build the documentation: docs/_build/html/index.html
	$(BIN)/python -m sphinx -q -W --keep-going -E -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

$(READY_FOR_DOCS): $(READY)
	$(INSTALL) -e '.[docs]'
	@touch $@

wheel: $(READY) ## Build the package into dist/
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w dist .

quickstart: $(READY) ## Depth against width on real MNIST images, about 2 minutes on 2 cores
	$(BIN)/cbundles sweep configs/quickstart.yaml

test: $(READY_TO_TEST) ## Run the tests that show mistakes (about 20 minutes on 2 cores)
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-slow: $(READY_TO_TEST) ## Run the others: real processes that are killed, real archives
	$(BIN)/python -m pytest -n auto --dist worksteal -m slow

test-faults: $(READY_TO_TEST) ## Kill commands 50 times, fill disks, send signals: what is resumed is bit-identical
	$(BIN)/python -m pytest -n auto --dist worksteal -m faults

test-torch: torch-env ## Run those of PyTorch modules, and name each
	$(WITH_TORCH)/bin/python -m pytest -vv -n auto --dist worksteal $(wildcard tests/test_*_torch.py)

test-all: test test-slow ## Run all tests

lint: $(READY_TO_TEST) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy cbundles scripts

bench: $(READY_TO_TEST) ## Measure training, the metric and audits on this machine, beside what others do (about 80 minutes; see scripts/bench_*.py)
	$(BIN)/python scripts/bench_peers.py --out reproduction/bench

PROFILE ?= auto
reproduce: $(READY) ## Every claim again, in reproduction/, resumable: PROFILE=cpu (105 minutes), paper (GPU), more, table1-small (5 to 10 hours), smoke (3 minutes)
	$(BIN)/cbundles reproduce $(PROFILE)

report: $(READY) ## Tables, figures and claims again, from the records in results/; your runs apart
	$(BIN)/cbundles report

clean: ## Remove the environment and everything generated, except results and reproduction
	rm -rf $(VENV) $(WITH_TORCH) docs/_build docs/generated .programs build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
