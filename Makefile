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

test-gpu: $(READY)  ## needs a CUDA device
	$(BIN)/pytest -q -m gpu tests/gpu

bench: $(READY)  ## measure every figure, write benchmarks/results, print one table
	$(BIN)/python -m benchmarks

bench-quick: $(READY)  ## the same, roughly, in a few minutes; writes nothing
	$(BIN)/python -m benchmarks --quick

model: $(READY)  ## train the embedded model, its probe and its compressor again (about a quarter of an hour)
	$(BIN)/python -m lens_training.support_desk
	$(BIN)/python -m lens_training.support_desk.compressor

format: $(READY)  ## ruff format and safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment, caches and local data
	rm -rf $(VENV) .wonder .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.PHONY: help install demo dev test lint types test-architecture test-unit test-integration test-gpu bench bench-quick model format clean
