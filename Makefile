# The commands of the README. Each does its own set-up; what it fetches or builds once lies in $SLUICE_DEV_DIR
# (default ~/.cache/sluice-dev). docs/development.md says more.

.PHONY: help build demo test simulation soak fuzz bench bench-peers instructions idle long-run dashboard-picture check advisories package services stop

HISTORIES ?= 1000000
KILLS ?= 200
# `make soak` without one takes a random one and prints it.
simulation: SEED ?= 1

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1@/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "  make %-17s %s\n", $$1, $$2 }'

package: ## a tarball and a .deb (OUT=.. for where)
	dev/package

build: ## the release binary
	cargo build --release --locked

demo: ## archive this machine's own logs through a real Kafka (STORE=file|minio)
	dev/demo

test: ## unit, property and integration tests against real Kafka, MinIO and Redis (ARGS=.. for cargo test)
	dev/test $(ARGS)

simulation: ## histories of whole tasks under every fault (HISTORIES=1000000 SEED=1)
	dev/simulation $(HISTORIES) $(SEED)

fuzz: ## damaged and hostile bytes of brokers and producers, with new seeds (SECONDS=60 for each of 15 targets)
	SLUICE_FUZZ_SECONDS=$(or $(SECONDS),60) cargo test --locked --lib kafka::native::fuzz -- --nocapture

soak: ## random faults on real processes under load (KILLS=200 SEED=..)
	dev/soak $(KILLS) $(SEED)

bench: ## 1 GB of logs through a real Kafka: CPU, memory, objects (APPS=200, STORE=file|minio)
	dev/bench

bench-peers: ## the same logs through Flink and Bento as well: CPU, memory, objects, a kill -9 of each (CODEC=zstd KILLS=1)
	dev/bench-peers

instructions: ## instructions of each step of a record against a baseline (UPDATE=1 writes it); needs valgrind
	UPDATE=$(UPDATE) dev/instructions

idle: ## what a worker costs that has nothing to do, against a real Kafka and Redis (SECONDS=60)
	dev/idle $(or $(SECONDS),60)

long-run: ## hours of steady load: does anything grow? (HOURS=2 OUTPUT=long-run)
	dev/long-run $(or $(HOURS),2) $(or $(OUTPUT),long-run)

dashboard-picture: ## docs/pictures/dashboard.svg: the Grafana dashboard drawn from a real Prometheus (MINUTES=5 STORE=minio)
	dev/dashboard-picture

check: ## formatting, lints, dependencies' licences and sources
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	dev/deny check

advisories: ## known vulnerabilities of the dependencies; needs the network
	dev/deny advisories

services: ## start Kafka, MinIO and Redis and leave them running
	@dev/services start

stop: ## stop what `make services` started
	@dev/services stop
