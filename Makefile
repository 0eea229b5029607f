# The only command entry: people and CI run these targets and nothing beside them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
PYTHON := .tools/venv/bin/python
SCENARIO ?= http1-1k
SCENARIOS := $(notdir $(basename $(wildcard loadtest/scenarios/*.json)))
FUZZ_SECONDS ?= 60
IMAGE ?= corelane/sidecar:dev
STATIC_TARGET := $(shell uname -m)-unknown-linux-gnu

.PHONY: help run test check setup build release bench micro loadtest flamegraph image fuzz

help: ## Print this list
	@echo "Corelane: a service mesh sidecar on per-core io_uring event loops. make <target>:"
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Build (minutes, the first time), then play the first example: orders calls payments, one replica resets
	@$(CARGO) build --locked --release -p corelane-sidecar --bin corelane-sidecar --example corelane-demo
	@target/release/examples/corelane-demo

test: setup ## Install what the tests need, then run every test on both event loop drivers (a quarter of an hour)
	@python3 .ci/suite.py

check: ## The fast half of `test`: formatting, clippy, tidy
	@python3 .ci/suite.py --only fmt --only clippy --only tidy

setup: ## Install the peers that tests and benchmarks talk to (Debian packages, a Python environment)
	@.ci/setup

build: ## Build everything for development
	@$(CARGO) build --locked --workspace --all-targets

release: ## Build the sidecar and the load generator as they ship
	@$(CARGO) build --locked --release --bin corelane-sidecar --bin corelane-loadtest

bench: setup release ## Compare with Envoy, HAProxy and nginx on this machine; options in ARGS="..."
	@$(PYTHON) bench/compare/run.py $(ARGS)

micro: ## Micro-benchmarks of parsing, matching, balancing and snapshot loads
	@$(CARGO) bench --locked -p corelane-bench-micro $(ARGS)

loadtest: ## Run a load scenario against TARGET=http://host:port/path; SCENARIO=<name>
	@if [[ -z "$(TARGET)" || ! -e "loadtest/scenarios/$(SCENARIO).json" ]]; then \
		echo "usage: make loadtest TARGET=http://host:port/path [SCENARIO=one of: $(SCENARIOS)]" >&2; exit 2; fi
	@$(CARGO) build --locked --release --bin corelane-loadtest
	@target/release/corelane-loadtest run --scenario loadtest/scenarios/$(SCENARIO).json --target "$(TARGET)" $(ARGS)

flamegraph: ## Write flamegraphs/<SCENARIO>/<commit>.svg from perf; SCENARIO=<name>
	@type -P perf >/dev/null || { echo "flamegraph: perf is needed (Debian: linux-perf)" >&2; exit 2; }
	@$(CARGO) build --locked --profile profiling --bin corelane-sidecar
	@$(CARGO) build --locked --release --bin corelane-loadtest
	@flamegraphs/record "$(SCENARIO)"

image: ## Build the static binary and a FROM scratch image of it; IMAGE=<name:tag>
	@RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols" $(CARGO) build --locked --release --bin corelane-sidecar --target $(STATIC_TARGET)
	@sidecar/image/build "target/$(STATIC_TARGET)/release/corelane-sidecar" "$(IMAGE)"

fuzz: ## Fuzz every parser for FUZZ_SECONDS each (needs cargo-fuzz and a nightly toolchain)
	@.ci/fuzz "$(FUZZ_SECONDS)"
