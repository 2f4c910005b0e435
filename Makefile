# The one task runner; CI calls nothing else. `make demo` and `make test` do all of their own set-up.
SHELL := /bin/bash
export CONCH_HOME ?= .conch
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM = false
PYTHON := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup up demo demo-all test check chart rehearse format protos bench bench-generation bench-autoscaling golden clean

help: ## This page
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Environments and Debian packages; quick when nothing changed
	@scripts/setup.sh

up: setup ## Triton and the three services on this machine; Ctrl-C stops them
	@.venv/bin/conch up

demo: setup ## Real reviews -> fine-tuned MiniLM -> certified version -> typed answers, in minutes
	@$(PYTHON) -m examples.demo

demo-all: setup ## The same for every task: entities, answers, embeddings, translation, summaries, generation
	@$(PYTHON) -m examples.demo_all $(ARGS)

test: ## All tests, against a real Triton and a real PostgreSQL
	@scripts/setup.sh test
	$(PYTHON) -m pytest $(ARGS)

check: setup chart ## Format, lint, types, import rules, contract, chart
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports --verbose >/dev/null || .venv/bin/lint-imports
	scripts/protos.sh --check

rehearse: setup ## A rollout by the chart without a cluster: real Tritons, real gateways, steady calls
	@scripts/chart_tools.sh
	@$(PYTHON) -m tests.rehearsal

chart: setup ## Lint and render the chart, hold it to the schemas of Kubernetes and of operators, lint the Dockerfile
	@scripts/chart_tools.sh
	$(PYTHON) -m pytest tests/chart tests/monitoring tests/images/test_dockerfile.py \
		--ignore tests/monitoring/test_autoscaling_queries.py --quiet $(ARGS)

format: setup ## Let ruff format and mend what it can
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

protos: setup ## Generate the code of protos/conch/v1 anew
	scripts/protos.sh

bench: setup ## Measure; prints lines `ratio <name> <value>`
	@$(PYTHON) -m benchmarks $(ARGS)

bench-generation: setup ## Streams beside transformers' generate; prints lines `ratio <name> <value>`
	@$(PYTHON) -m benchmarks.generation $(ARGS)

bench-autoscaling: setup ## The chart's autoscaler against simulated traffic, CPU and an oracle; minutes
	@$(PYTHON) -m benchmarks.autoscaling $(ARGS)

golden: setup ## Refresh tests/golden on purpose; look at the diff before you commit it
	CONCH_GOLDEN=1 $(PYTHON) -m pytest tests -k golden

clean: ## Remove everything that set-up and the services made
	rm -rf .venv $(CONCH_HOME) .mypy_cache .ruff_cache .pytest_cache
