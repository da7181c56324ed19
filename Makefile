# Two commands matter: `make book` and `make test`. Both make the environment they need.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
# Two torch threads on small tensors can be 40 times slower than one: parallelism is by process.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export PYTHONPATH :=

.PHONY: help book test lab bench notebooks colab lock clean
.DEFAULT_GOAL := help

help:
	@echo "make book       execute every notebook here and build the HTML book in _build/html/"
	@echo "make test       unit tests, every notebook, lint and types"
	@echo "make lab        open the book in JupyterLab"
	@echo "make bench      run the benchmarks; results go to benchmarks/results/"
	@echo "make notebooks  execute every notebook and store its outputs"
	@echo "make colab      write the Colab version of every notebook into colab/"
	@echo "make lock       pin requirements.in into requirements.txt"
	@echo "make clean      remove everything that make has made"

$(READY): requirements.txt pyproject.toml tools/bootstrap.sh
	@bash tools/bootstrap.sh "$(PYTHON)" $(VENV)
	@touch $@

book: $(READY)
	$(BIN)/python tools/build_book.py

test: $(READY)
	$(BIN)/python -m pytest tests fldp --doctest-modules -n $(WORKERS)
	$(BIN)/python -m pytest book -n $(WORKERS) --dist loadscope -p no:cacheprovider \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout=300
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

lab: $(READY)
	$(BIN)/jupyter lab book

bench: $(READY)
	$(BIN)/python -m benchmarks

notebooks: $(READY)
	$(BIN)/python tools/run_notebooks.py
	$(BIN)/python tools/colab.py

colab: $(READY)
	$(BIN)/python tools/colab.py

lock: $(READY)
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --upgrade --allow-unsafe \
	  --strip-extras --no-annotate --no-emit-find-links --no-emit-index-url \
	  --no-emit-trusted-host --output-file requirements.txt requirements.in

clean:
	rm -rf $(VENV) _build .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis fldp.egg-info
