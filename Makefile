# Everything a person or a machine runs here. `make` alone lists the targets.
#
# There is one build profile, release, for the program, its tests and its benchmarks; and one target folder for
# all checkouts on a machine. RocksDB, by far the slowest dependency, is therefore compiled once per machine.
# For the same reason every cargo call that can reach RocksDB takes the whole workspace: a narrower choice of
# packages can change the features of build dependencies, and cargo would compile it a second time. (xtask cannot.)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

export PATH := $(HOME)/.cargo/bin:$(PATH)
export CARGO_TARGET_DIR ?= $(HOME)/.cache/holdfast/target

CARGO := cargo
BIN := $(CARGO_TARGET_DIR)/release/holdfast

NODES ?= 3
PARTITIONS ?= 16
DATA_DIR ?= data
BASE_PORT ?= 2379
SEEDS ?= 0..200
TIME ?=
JOBS ?= 2
RUNS ?= 1000000
ROUNDS ?= 20
SHARD ?= 0/20

.PHONY: help run build install check fix test test-rust test-compose test-chaos sim sim-messages planted chaos soak second-opinion recovery fuzz-targets mutants bench image deps deps-test clean-data

help: ## list the targets
	@echo "usage: make TARGET"
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
	@echo
	@echo "variables: NODES=$(NODES) PARTITIONS=$(PARTITIONS) DATA_DIR=$(DATA_DIR) BASE_PORT=$(BASE_PORT) SEEDS=$(SEEDS) JOBS=$(JOBS) RUNS=$(RUNS) ROUNDS=$(ROUNDS) TIME=$(TIME) TARGETS=$(TARGETS) SHARD=$(SHARD)"
	@echo "           CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)"

run: build ## build, then run a cluster of three controllers here, in the foreground (Ctrl-C stops it)
	exec $(BIN) dev --nodes $(NODES) --partitions $(PARTITIONS) --data-dir $(DATA_DIR) --base-port $(BASE_PORT)

build: deps ## build the program: $(CARGO_TARGET_DIR)/release/holdfast
	$(CARGO) build --release --locked --workspace --bins

install: build ## copy the program to PREFIX/bin (default /usr/local)
	install -D -m 0755 $(BIN) $(or $(PREFIX),/usr/local)/bin/holdfast

check: deps ## format, lints, documentation, layout, licences; changes nothing
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --workspace --no-deps
	$(CARGO) run --quiet --release --locked -p xtask -- tidy
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --offline check; \
	else echo "skipped: cargo deny (not installed; cargo install cargo-deny)"; fi

fix: deps ## format and apply the lints' suggestions
	$(CARGO) fmt --all
	$(CARGO) clippy --release --workspace --all-targets --fix --allow-dirty --allow-staged -- -D warnings
	$(CARGO) fmt --all

test: deps-test check test-rust test-compose test-chaos ## check, then every test; needs nothing but this machine

test-rust: deps-test ## unit tests, then the black-box tests of the built binary
	$(CARGO) build --release --locked --workspace --bins
	scripts/test-rust.sh $(BIN)

test-compose: ## the compose file, for real: three containers, one killed, one crashed (skipped without Docker)
	@if docker info >/dev/null 2>&1; then scripts/test-compose.sh $(BIN); \
	else echo "skipped: compose test (no Docker daemon answers \`docker info\`)"; fi

test-chaos: ## half a minute of chaos: real processes that lose unsynced writes and are killed (skipped without root and FUSE)
	@if [ "$$(id -u)" = 0 ] && [ -e /dev/fuse ] && [ -e /dev/net/tun ]; then \
	scripts/install-deps.sh chaos && \
	JEPSEN_NO_BUILD=1 jepsen/run --workload kv,register,set --nemesis power,kill --time 30s --rate 20; \
	else echo "skipped: chaos test (needs root, /dev/fuse and /dev/net/tun)"; fi

sim: deps ## simulate many clusters under faults: SEEDS=0..200, JOBS=2
	$(CARGO) build --release --locked --workspace --bins
	$(CARGO_TARGET_DIR)/release/fuzz --seeds $(SEEDS) --jobs $(JOBS)

sim-messages: deps ## the same of Raft alone, without gRPC: ten times as much time for each of SEEDS, and faster
	$(CARGO) build --release --locked --workspace --bins
	$(CARGO_TARGET_DIR)/release/fuzz --messages --seeds $(SEEDS) --jobs $(JOBS)

planted: deps ## plant each known fault in turn and see the simulation find it within 500 seeds (a build of its own)
	scripts/planted.sh

fuzz-targets: deps ## fuzz with coverage: RUNS=1000000 each, or TIME=seconds each; TARGETS="commands ..." (all)
	RUNS=$(if $(TIME),-1,$(RUNS)) SECONDS_EACH=$(or $(TIME),0) JOBS=$(JOBS) scripts/fuzz.sh $(TARGETS)

mutants: ## mutate CRATES (all that have tests of their own), SHARD=0/20 of each; needs cargo-mutants (docs/mutation.md)
	SHARD=$(SHARD) scripts/mutants.sh $(CRATES)

chaos: ## real processes under every kind of fault for TIME (5m); needs root
	jepsen/run --workload all --nemesis mixed --time $(or $(TIME),5m)

second-opinion: ## judge a million histories of registers with porcupine-rs beside our own judge; it is built apart
	$(CARGO) fmt --manifest-path crates/checker/second-opinion/Cargo.toml -- --check
	$(CARGO) test --release --locked --manifest-path crates/checker/second-opinion/Cargo.toml

soak: second-opinion ## chaos for TIME (60m), in slices; the second opinion before, and after it 50 million inputs for each fuzz target
	status=0; jepsen/run soak --workload all --nemesis mixed --time $(or $(TIME),60m) || status=$$?; \
	FUZZ_EXECUTIONS=$(or $(FUZZ_EXECUTIONS),50000000) $(CARGO) test --release --locked --workspace --test million || status=$$?; \
	exit $$status

recovery: ## how long writes pause after one fault, ROUNDS=20 of each, with 1 and with 64 partitions, written in part and all; needs root
	status=0; for load in "--partitions 1" "--partitions 64" "--partitions 64 --probers 64 --every 20"; do \
	jepsen/run recovery $$load --rounds $(ROUNDS) || status=$$?; done; exit $$status

bench: deps-test ## measure against etcd on this machine; writes docs/benchmarks.md
	$(CARGO) build --release --locked --workspace --bins
	$(CARGO_TARGET_DIR)/release/bench --holdfast $(BIN) --out docs/benchmarks.md

image: build ## build the container image holdfast:latest
	scripts/image.sh $(BIN)

deps: ## install what building needs and is missing
	@scripts/install-deps.sh build

deps-test: ## install what testing needs and is missing
	@scripts/install-deps.sh build test

clean-data: ## delete the cluster that `make run` keeps in DATA_DIR
	rm -rf -- $(DATA_DIR)
