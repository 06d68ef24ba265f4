# Every target sets up what it needs; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-slow test-all lint bench reproduce report clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(READY) ## Make .venv with everything pinned (plain pip, Python 3.11 or newer)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "cbundles needs Python 3.11 or newer; try: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[prepare,dev]'
	@touch $@

quickstart: $(READY) ## Depth against width on real MNIST images, about 2 minutes on 2 cores
	$(BIN)/cbundles sweep configs/quickstart.yaml

test: $(READY) ## Run the tests that show mistakes (2 to 8 minutes on 2 cores)
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-slow: $(READY) ## Run the others: real processes that are killed, real archives
	$(BIN)/python -m pytest -n auto --dist worksteal -m slow

test-all: test test-slow ## Run all tests

lint: $(READY) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy cbundles scripts

bench: $(READY) ## Measure training and the metric on this machine (see scripts/bench_*.py)
	$(BIN)/python scripts/bench_sweep.py
	$(BIN)/python scripts/bench_metric.py

PROFILE ?= auto
reproduce: $(READY) ## Every claim again, in reproduction/, resumable: PROFILE=cpu (105 minutes), paper (GPU), more, smoke (3 minutes)
	$(BIN)/cbundles reproduce $(PROFILE)

report: $(READY) ## Tables, figures and claims again, from the records in results/; your runs apart
	$(BIN)/cbundles report

clean: ## Remove the environment and everything generated, except results and reproduction
	rm -rf $(VENV) .programs build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
