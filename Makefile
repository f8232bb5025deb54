# Every target sets up what it needs; `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  %-18s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Wonder needs Python 3.11 or newer; PYTHON=... names one"; exit 2; }
	@echo "setting up $(VENV) (once; downloads PyTorch and friends) ..."
	@$(PYTHON) -m venv $(VENV)
	@PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $(READY)

install: $(READY)  ## set up the virtual environment

demo: $(READY)  ## 60 tickets through the local stack; TICKETS=my.jsonl for your own
	@$(BIN)/python -m examples.ticket_triage $(if $(TICKETS),--tickets $(TICKETS))

dev: $(READY)  ## local Temporal server, GPU worker and CPU worker, until Ctrl-C
	@$(BIN)/wonder dev

test: lint types test-architecture test-unit test-integration  ## everything CI runs

lint: $(READY)  ## ruff and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

test-architecture: $(READY)  ## import weights, public API, packaging, contracts
	$(BIN)/pytest -q tests/architecture

test-unit: $(READY)  ## no server
	$(BIN)/pytest -q tests/unit

test-integration: $(READY)  ## against a real Temporal server; fails without one
	$(BIN)/pytest -q tests/integration

test-cel: $(READY)  ## 100 000 random conditions against Google's CEL, and every name misspelt (about two minutes)
	$(BIN)/pytest -q -m slow tests/unit/routing/test_cel.py

test-lens: $(READY)  ## lenses that learn, training killed again and again; minutes
	$(BIN)/pytest -q -m slow tests/unit/lens

test-slurm: $(READY)  ## launchers on a real Slurm cluster of this machine; installs its packages if root; two minutes
	infra/slurm/install.sh
	$(BIN)/pytest -q --timeout 600 tests/slurm

test-lens-kill: $(READY)  ## a run of wonder.LensTraining through 20 kills -9 of everything; memory, divergence, sweeps (minutes)
	$(BIN)/pytest -q -m slow tests/integration/lens

test-compile: $(READY)  ## torch.compile with more models and a real compiler (minutes)
	$(BIN)/pytest -q -m slow tests/unit/engine

test-gpu: $(READY)  ## needs a CUDA device
	$(BIN)/pytest -q -m gpu tests/gpu

test-quant:  ## with torchao, which every import of transformers would stumble over: in an environment of its own
	@$(PYTHON) -m venv .venv-quant
	@PIP_CONSTRAINT=constraints.txt .venv-quant/bin/python -m pip install -qq --disable-pip-version-check -e '.[dev,quant]'
	PATH="$(CURDIR)/.venv-quant/bin:$$PATH" .venv-quant/bin/python -m pytest -q -m quant tests/unit

bench: $(READY)  ## measure every figure, write benchmarks/results, print one table
	$(BIN)/python -m benchmarks

bench-peers:  ## install the tools that benchmarks/engine.py measures beside the engine, apart from everything else
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install -q -r benchmarks/requirements-peers.txt

bench-quick: $(READY)  ## the same, roughly, in a few minutes; writes nothing
	$(BIN)/python -m benchmarks --quick

bench-lens: $(READY)  ## do lenses learn? three targets, every method in its budget of CPU seconds (about an hour and a half)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.lens

bench-confidence: $(READY)  ## which signal knows when an answer is wrong; DATA=questions.jsonl MODEL=name for your own
	$(BIN)/python -m benchmarks.confidence $(if $(DATA),--data $(DATA)) $(if $(MODEL),--model $(MODEL))

fact-world: $(READY)  ## train the model of the closed benchmark world again (about half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m lens_training.fact_world

model: $(READY)  ## train the embedded model, its probe and its compressor again (about a quarter of an hour)
	$(BIN)/python -m lens_training.support_desk
	$(BIN)/python -m lens_training.support_desk.compressor

format: $(READY)  ## ruff format and safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environments, caches and local data
	rm -rf $(VENV) .venv-quant .venv-peers .wonder .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.PHONY: help install demo dev test lint types test-architecture test-unit test-integration test-cel test-lens test-slurm test-compile test-gpu test-quant bench bench-peers bench-quick bench-lens bench-confidence fact-world model format clean
