# make run    sets everything up and runs the quickstart
# make test   sets everything up and runs the tests
# make bench  sets everything up and measures the attacks beside public libraries
PYTHON ?= python3
VENV ?= .venv
ARGS ?= experiment=quickstart
# a process for each core, four at most; a file's tests share what they set up (make test TESTS="-k kde")
TESTS ?= --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test lint format types check bench faults fuzz slurm ray docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo 'python3 >= 3.10 needed: make PYTHON=python3.12 run' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(BIN)/.developer: $(BIN)/.installed pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

run: $(BIN)/.installed ## run a study, by default the quickstart (make run ARGS="experiment=table2 data=mnist")
	$(BIN)/pdml run $(ARGS)

test: $(BIN)/.developer ## run the tests
	$(BIN)/python -m pytest $(TESTS)

lint: $(BIN)/.developer ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(BIN)/.developer ## put all files into ruff's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(BIN)/.developer ## mypy
	$(BIN)/mypy

check: lint types test ## everything that CI runs

bench: $(BIN)/.developer ## measure the attacks beside public libraries (make bench BENCH="--families fgsm,bim")
	$(BIN)/python -m pip install --quiet -e '.[benchmark]'
	$(BIN)/python -m benchmarks.attacks $(BENCH)

faults: $(BIN)/.developer ## kill a study 20 times and compare it with an undisturbed one
	$(BIN)/python -m tests.integration.faults $(FAULTS)

fuzz: $(BIN)/.developer ## open 10,000 mutated guards and images (make fuzz FUZZ="--count 500 --seed 7")
	$(BIN)/python -m tests.integration.fuzz $(FUZZ)

slurm: $(BIN)/.developer ## a sweep on a real Slurm of one node (apt install slurm-wlm munge)
	$(BIN)/python -m pip install --quiet -e '.[slurm]'
	$(BIN)/python -m tests.integration.slurm

ray: $(BIN)/.developer ## a sweep on a real Ray of this machine
	$(BIN)/python -m pip install --quiet -e '.[ray]'
	$(BIN)/python -m tests.integration.on_ray

docs: $(BIN)/.installed ## write tables and reference into README.md and docs/*.md, and the reference as HTML into docs/api
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/tables.py
	$(BIN)/pdoc attacks detection --docformat numpy --output-directory docs/api

clean: ## delete the virtual environment and caches; outputs/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
