# `make help` lists the targets. Everything happens in $(VENV); nothing is installed elsewhere.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONFIG ?= configs/crystal_formation_energy.yaml

.DEFAULT_GOAL := help
.PHONY: help install run test test-slow check format constraints clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## Make .venv and install everything, pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[crystals,words,dask,dev]'
	@touch $@

run: $(STAMP)  ## Run the default campaign (CONFIG=… for another); again: go on
	@$(BIN)/motherlode run $(CONFIG)

test: $(STAMP)  ## Run the tests (under 10 minutes on 2 cores)
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term --cov-fail-under=90

test-slow: $(STAMP)  ## Run the tests marked slow
	$(BIN)/pytest -m slow

check: $(STAMP)  ## Lint, types and the one direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## Format the code and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: $(STAMP)  ## Write what is installed to constraints.txt
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu//' > constraints.new
	(grep '^#' constraints.txt; sort -f constraints.new) > constraints.tmp
	mv constraints.tmp constraints.txt && rm constraints.new

clean:  ## Remove the environment and caches; campaigns in runs/ stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage build *.egg-info
