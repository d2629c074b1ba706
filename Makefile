# One word per thing to do; every verb works as the first command on a fresh clone.
#
#   make demo    three partitions share memory, lose it and survive: about ten seconds
#   make fast    the tests that start no partitions and no campaigns: under a minute
#   make test    the whole test suite
#   make check   lint, types, layers, house rules
#
# PYTHON=python3.12 make test picks the interpreter that .venv is made with.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COMPILED := $(VENV)/.compiled
SOURCES := $(shell find xpmem_emu -name '*.py')

# What pip does, in few words. bash, for its pipefail.
SHELL := bash
PROGRESS := sed -u -n -E -e 's/^Collecting ([^][ <>=!~;(]+).*/  fetching \1/p' \
  -e 's/^Building .*/  building xpmem-emu/p' -e 's/^Installing .*/  installing all of them/p'
CALLED := the command is $(BIN)/xpmem-emu; to call it by its name: . $(BIN)/activate

.DEFAULT_GOAL := help
.PHONY: help setup demo fast coverage test containers bare slurm check bench sim swarms mutants explore soak hostile crowd fuzz model lab docs

help: ## what can be made
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

setup: $(COMPILED) ## make .venv with everything in it

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is missing or older than 3.11; try: apt-get install python3," \
	       "or PYTHON=/path/to/python3.11 make setup" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) cannot make virtual environments;" \
	       "try: apt-get install python3-venv" >&2; exit 1; }
	@echo "setting up $(VENV): once, a minute or two, and again when pyproject.toml changes"
	@$(PYTHON) -m venv $(VENV)
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check \
	  --editable '.[dev]' | $(PROGRESS)
	@touch $@
	@echo "ready; $(CALLED)"

# pip compiles what it installs, and not what stays where it is. Where Python may not do that on its
# own (PYTHONDONTWRITEBYTECODE), each command would compile all that it imports, every time.
$(COMPILED): $(READY) $(SOURCES)
	@$(BIN)/python -m compileall -q xpmem_emu
	@touch $@

demo: $(COMPILED) ## watch memory being shared, recalled and survived
	@$(BIN)/xpmem-emu demo
	@echo "$(CALLED)"

FAST := $(BIN)/pytest -n 2 -m "not live and not slow"

fast: $(COMPILED) ## the tests that start no partitions and no campaigns: under a minute
	@echo "running the fast tests on two processes"
	@$(FAST) --durations 5 --durations-min 2

coverage: $(COMPILED) ## lines and branches that make fast reaches, with a floor
	@$(FAST) --cov --cov-report term

test: $(COMPILED) ## the whole test suite
	@echo "running the tests on two processes"
	@$(BIN)/pytest -n 2

containers: $(COMPILED) ## compose, Swarm: deployed and broken; needs a Docker engine, docker-compose
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,containers]'
	@$(BIN)/pytest tests/containers --timeout 1200 --durations 10 -rP

slurm: $(COMPILED) ## jobs of a real Slurm in namespaces; needs root, slurm-wlm, munge
	@$(BIN)/pytest tests/slurm --timeout 300 -rP

bare: ## the README's first commands in a bare container, as two users; needs a Docker engine
	@.ci/bare

check: $(COMPILED) ## lint, types, layers, house rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/test_tidy.py

sim: $(COMPILED) ## a long campaign of seeded worlds, judged by every checker
	@$(BIN)/xpmem-emu sim run chaos --seeds 0..9999 --jobs 2

swarms: $(COMPILED) ## 300 worlds of each swarm that is aimed at one kind of thing
	@failed=; for swarm in partitions/scenarios/chaos-*.toml; do echo "== $$swarm"; \
	  $(BIN)/xpmem-emu sim run $$swarm --seeds 0..299 --jobs 2 || failed="$$failed $$swarm"; done; \
	  [ -z "$$failed" ] || { echo "not valid:$$failed" >&2; exit 1; }

mutants: $(COMPILED) ## break the protocol in every known way: each must be caught
	@$(BIN)/xpmem-emu sim mutants --jobs 2

explore: $(COMPILED) ## every schedule of the small worlds with at most two deviations
	@$(BIN)/xpmem-emu sim explore all --deviations 2 --jobs 2

soak: $(COMPILED) ## real processes: fences inside a store, breaking under load, crowded tasks
	@$(BIN)/python -m tests.live.fence_loop --rounds 100
	@$(BIN)/python -m tests.live.kill_loop --rounds 200
	@$(BIN)/python -m tests.live.crowd_loop --rounds 100

hostile: $(COMPILED) ## attacks by clients, strangers, peers, files: what a victim notices
	@$(BIN)/python -m tests.hostile.siege

crowd: $(COMPILED) ## 200 clients, 10,000 attachments, things killed for five minutes: no leaks
	@$(BIN)/python -m tests.live.many_clients

RUNS ?= 10000000

fuzz: $(COMPILED) ## the decoders that see bytes of others, by atheris: RUNS=10000000, half an hour
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,fuzz]'
	@$(BIN)/python -m tests.hostile.fuzz --runs $(RUNS)

model: ## search every order of a small world with spin
	@models/check

bench: $(COMPILED) ## ratios against the limits, measured in one run
	@$(BIN)/python -m bench.run

lab: $(COMPILED) ## run every experiment and write docs/lab.md with its plots: minutes
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,lab]'
	@$(BIN)/xpmem-emu lab report --jobs 2

docs: $(COMPILED) ## draw what the pages show of the code: pictures, lists
	@$(BIN)/python -m xpmem_emu.docs.draw
