# `make demo` and `make test` do all set-up from a fresh clone: a virtual environment of
# their own (.venv), everything from the package registry. Repeated, they start at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Older pip knows no dependency groups.
PIP_REQUIREMENT := pip>=25.1
RESULTS ?= benchmarks/results/latest.json

.PHONY: help demo test check lint bench bench-compare model experiment clean
.DEFAULT_GOAL := help

help:  ## Say what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## */\t/' | expand -t 16

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "$(PIP_REQUIREMENT)"
	touch $@

$(VENV)/.run: $(VENV)/.pip pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# torch first and by exact version: a looser range, or torch as somebody's dependency, may
# resolve to a CUDA build of several gigabytes.
$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --group bench
	touch $@

# The first run compiles the kernels, which takes about half a minute; later ones do not.
demo: $(VENV)/.run  ## Query a phantom study with the embedded bundle and index
	$(BIN)/ildsdk demo

test: $(VENV)/.dev  ## Run the whole default test suite
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test  ## Static checks, then the tests

bench: $(VENV)/.bench  ## Run the regression suite (20 minutes): RESULTS=file.json, tables beside it
	$(BIN)/python -m benchmarks.suite $(RESULTS)

bench-compare: $(VENV)/.bench  ## OLD=a.json NEW=b.json: fail where NEW is slower beyond the noise
	$(BIN)/python -m benchmarks.compare $(OLD) $(NEW)

model: $(VENV)/.dev  ## Rebuild the embedded phantom bundle and index
	$(BIN)/python -m export default-bundle

experiment: $(VENV)/.dev  ## Six systems, five folds by case, on phantoms, with report
	$(BIN)/python -m export experiment small.toml

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis demo-out
