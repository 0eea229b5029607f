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
TRIPLE := $(shell uname -m)-unknown-linux-gnu

# What ships follows a profile of its own request paths where there is one for this machine (docs/adr/0011); PGO_PROFILE=
# builds without. With --target, so that the flags do not reach build scripts; the results are linked where cargo puts them
# without. Encoded flags may hold spaces, as paths do.
PGO_PROFILE ?= $(wildcard sidecar/profile/$(TRIPLE).profdata)
NEXT := $(shell printf '\037')
SPACE := $(subst ,, )
FOLLOW := $(if $(PGO_PROFILE),-Cprofile-use=$(CURDIR)/$(PGO_PROFILE)$(NEXT)-Cllvm-args=-no-pgo-warn-mismatch)
ASKED := $(subst $(SPACE),$(NEXT),$(strip $(RUSTFLAGS)))
SHIPPED := target/$(TRIPLE)/release
BUILD_SHIPPED = CARGO_ENCODED_RUSTFLAGS="$(FOLLOW)$(if $(FOLLOW),$(if $(ASKED),$(NEXT)))$(ASKED)" \
	$(CARGO) build --locked --release --target $(TRIPLE) --target-dir target

.PHONY: help run test check setup build release bench micro loadtest flamegraph profile image fuzz

help: ## Print this list
	@echo "Corelane: a service mesh sidecar on per-core io_uring event loops. make <target>:"
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Build (minutes, the first time), then play the first example: orders calls payments, one replica resets
	@$(BUILD_SHIPPED) -p corelane-sidecar --bin corelane-sidecar --example corelane-demo
	@$(SHIPPED)/examples/corelane-demo

test: setup ## Install what the tests need, then run every test on both event loop drivers (a quarter of an hour)
	@python3 .ci/suite.py

check: ## The fast half of `test`: formatting, clippy, tidy
	@python3 .ci/suite.py --only fmt --only clippy --only tidy

setup: ## Install the peers that tests and benchmarks talk to (Debian packages, a Python environment)
	@.ci/setup

build: ## Build everything for development
	@$(CARGO) build --locked --workspace --all-targets

release: ## Build the sidecar and the load generator as they ship
	@$(BUILD_SHIPPED) --bin corelane-sidecar --bin corelane-loadtest
	@mkdir -p target/release && ln -f $(SHIPPED)/corelane-sidecar $(SHIPPED)/corelane-loadtest target/release/

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

profile: ## Record the profile that `release` follows (needs the component llvm-tools); after changes to request paths
	@$(CARGO) build --locked --release --bin corelane-loadtest
	@RUSTFLAGS="-C profile-generate" $(CARGO) build --locked --release --target $(TRIPLE) --target-dir target/instrumented --bin corelane-sidecar
	@mkdir -p sidecar/profile
	@sidecar/profile/record --sidecar target/instrumented/$(TRIPLE)/release/corelane-sidecar \
		--loadtest target/release/corelane-loadtest --out sidecar/profile/$(TRIPLE).profdata

image: ## Build the static binary and a FROM scratch image of it; IMAGE=<name:tag>
	@CARGO_ENCODED_RUSTFLAGS="-Ctarget-feature=+crt-static$(NEXT)-Cstrip=symbols$(if $(FOLLOW),$(NEXT)$(FOLLOW))" $(CARGO) build --locked --release --bin corelane-sidecar --target $(TRIPLE) --target-dir target/image
	@sidecar/image/build "target/image/$(TRIPLE)/release/corelane-sidecar" "$(IMAGE)"

fuzz: ## Fuzz every parser for FUZZ_SECONDS each (needs cargo-fuzz and a nightly toolchain)
	@.ci/fuzz "$(FUZZ_SECONDS)"
