# Two commands matter: `make book` and `make test`; between two changes, `make check`. Each makes the
# environment that it needs.
SHELL := /bin/bash
# PYTHON=/path/to/python3.12 names the Python to build with; TORCH=cpu takes torch without CUDA.
PYTHON ?=
TORCH ?=
VENV := .venv
BIN := $(VENV)/bin
# An environment knows its own path: in a moved folder it is made anew.
READY := $(VENV)/.ready-$(shell pwd | cksum | cut -d " " -f 1)
WORKERS ?= 2
# Two torch threads on small tensors can be 40 times slower than one: parallelism is by process.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export PYTHONPATH :=

.PHONY: help ready book pdf offline browser test check lab edit bench notebooks twins \
  assignments grade grade-demo quizzes slides lock release-check flower flower-deploy fuzz clean
.DEFAULT_GOAL := help

help:
	@echo "make book       execute every notebook here and build the HTML book in _build/html/"
	@echo "make browser    the built pages in Chromium: bytes, requests, first paint, violations, links, the way in"
	@echo "make pdf        the book as a PDF, _build/fldp.pdf (needs LaTeX; says which packages)"
	@echo "make offline    the built pages as one archive in _build/, to be read without a network"
	@echo "make test       unit tests, every notebook, lint and types"
	@echo "make check      lint, types and the quick unit tests, in less than a minute"
	@echo "make lab        open the chapters in JupyterLab, as plain notebooks that are yours to change"
	@echo "make edit       open the sources of the book in JupyterLab"
	@echo "make bench      run the benchmarks; results go to benchmarks/results/"
	@echo "make notebooks  execute every notebook and store its outputs"
	@echo "make twins      write the notebooks that are read alone into _build/twins/"
	@echo "make assignments   student, solution, Colab and Gradescope versions into build/assignments/"
	@echo "make grade SUBMISSIONS=folder [ASSIGNMENT=name]   marks and feedback into build/grades/"
	@echo "make grade-demo     twenty synthetic submissions, honest and hostile, graded"
	@echo "make quizzes    the quizzes for a learning platform, into build/quizzes/"
	@echo "make slides     a deck of slides for each chapter, into build/slides/"
	@echo "make lock       pin requirements.in into requirements.txt (UPGRADE=--upgrade moves every pin)"
	@echo "make release-check   a clean clone, built and tested with the distribution's own python3"
	@echo "make flower          what runs on Flower, tested in an environment of its own, .cache/flower"
	@echo "make flower-deploy   a deployment on this machine, with all that can happen to it; minutes"
	@echo "make fuzz            models, records and losses put together at random, ten times as many"
	@echo "make clean      remove everything that make has made"

$(READY): requirements.txt pyproject.toml tools/bootstrap.sh
	@TORCH="$(TORCH)" bash tools/bootstrap.sh $(VENV) $@ "$(PYTHON)"

ready: $(READY)

book: $(READY)
	$(BIN)/python tools/build_book.py

# Takes what cells print from the cache of `make book`.
pdf: $(READY)
	$(BIN)/python tools/pdf.py

offline: $(READY)
	$(BIN)/python tools/offline.py

# Needs node and a Chromium of the system (or its path in CHROMIUM); takes minutes.
browser: $(READY)
	npm ci --prefix tests/browser --no-audit --no-fund
	$(BIN)/python tools/check_links.py
	if command -v lychee; then lychee --offline --no-progress --include-fragments \
	  --exclude-path 404.html _build/html/book; fi
	node tests/browser/click.mjs _build/html
	node tests/browser/path.mjs _build/html
	node tests/browser/report.mjs _build/html

test: $(READY)
	$(BIN)/python -m pytest tests fldp course --doctest-modules -n $(WORKERS)
	$(BIN)/python -m pytest book -n $(WORKERS) --dist loadscope -p no:cacheprovider \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout=300
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

# What is not marked slow. Types are checked beside the tests: cold, mypy takes a quarter of a minute.
check: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy & types=$$!; \
	  $(BIN)/python -m pytest tests fldp course --doctest-modules -m "not slow" -n $(WORKERS) \
	    -p no:nbval; tests=$$?; wait $$types && exit $$tests

# JupyterLab starts as root only where it is told to.
LAB := $(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root)

lab: $(READY)
	$(BIN)/python tools/twins.py --keep notebooks
	$(LAB) notebooks

edit: $(READY)
	$(LAB) book

bench: $(READY)
	$(BIN)/python -m benchmarks

notebooks: $(READY)
	$(BIN)/python tools/run_notebooks.py

twins: $(READY)
	$(BIN)/python tools/twins.py

assignments: $(READY)
	$(BIN)/python -m course build

# Wants the course's key in FLDP_COURSE_KEY, and says how to make one.
grade: $(READY)
	$(BIN)/python -m course grade "$(or $(SUBMISSIONS),$(error SUBMISSIONS=folder is missing))" \
	  $(if $(ASSIGNMENT),--assignment "$(ASSIGNMENT)")

grade-demo: $(READY)
	$(BIN)/python -m course demo

quizzes: $(READY)
	$(BIN)/python tools/quizzes.py

slides: $(READY)
	$(BIN)/python tools/slides.py

lock: $(READY)
	$(BIN)/python tools/lock.py $(UPGRADE)

# Examples that the tests, which try the same ones at every run, have not seen.
fuzz: $(READY)
	FLDP_HYPOTHESIS=search $(BIN)/python -m pytest tests/test_fuzz.py -n $(WORKERS)

# Flower holds back packages that the book pins: its environment is another one.
flower: $(READY)
	bash tools/flower.sh .cache/flower $(BIN)/python

flower-deploy: $(READY)
	bash tools/flower.sh .cache/flower $(BIN)/python deploy

release-check:
	python3 tools/release_check.py

clean:
	rm -rf $(VENV) _build build .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis fldp.egg-info \
	  "$${XDG_CACHE_HOME:-$$HOME/.cache}/fldp-flower-$$(pwd | cksum | cut -d ' ' -f 1)"
