# What people run, and what CI runs.
.PHONY: run server test test-peers fuzz chaos check check-all check-imports check-pages format lint docs bench bench-compare \
	install dist tools clean

CARGO ?= cargo
# What Rust and Python are enough for: the crate that mounts a disk of its own is tested by test-peers.
TESTED = --workspace --exclude power-cuts
PREFIX ?= $(HOME)/.local

## Start everything on a generated market, and say what to open.
run: server
	./target/debug/forecourt up --demo

## The server alone, in the build that the tests use; `cargo build --release` makes the one to run in earnest.
server:
	@scripts/build-server $(CARGO)

## All tests that need Rust and Python alone: real nats-server, real files, real clients.
test: tools .tools/clients
	$(CARGO) test $(TESTED) --locked --no-fail-fast

## What needs Debian's packages, which it installs: psql, a browser, ODBC, JDBC, promtool against a server of this build; and
## what needs a disk of its own, to fill it or to cut its power.
test-peers: server .tools/clients .tools/pages
	scripts/get-peers
	scripts/test-peers
	scripts/with-small-disk scripts/check-full-disk
	$(CARGO) test --locked -p power-cuts
	$(CARGO) build --locked -p power-cuts
	scripts/check-power-cuts --cuts $(or $(CUTS),50) --seed $(or $(SEED),1)
	@echo "power cuts with a lake that is not synced, which have to be found:"
	scripts/check-power-cuts --cuts 50 --seed 11 --broken-sync lake 2>&1 | \
		grep -E "cannot open the lake|what happened is not there"

## Every entry fed with spoiled events, longer than `make test` does: make fuzz SECONDS=600.
fuzz:
	FUZZ_SECONDS=$(or $(SECONDS),60) $(CARGO) test $(TESTED) --locked -- spoiled_ --nocapture

## Seeded plans of kills, pauses and damage while a market is played: make chaos PLANS=200 SEED=1. On a small disk that is
## filled, with a clock that jumps: both are this command's own.
chaos: tools
	scripts/get-faketime
	$(CARGO) test $(TESTED) --locked --no-run
	scripts/with-small-disk env CHAOS_FAKETIME=$(or $(FORECOURT_TOOLS),$(CURDIR)/.tools)/libfaketime.so.1 \
		CHAOS_PLANS=$(or $(PLANS),10) CHAOS_SEED=$(or $(SEED),1) \
		$(CARGO) test $(TESTED) --locked --test system -- chaos --nocapture

## Everything CI checks.
check: format lint test docs test-peers

## What is slow and needed less often: the size of the release, and each entry fed with spoiled events for ten minutes.
check-all: check
	$(CARGO) build --release --locked -p forecourt
	scripts/build-budget --release
	$(MAKE) fuzz SECONDS=600

format:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --workspace --all-targets --locked -- --deny warnings

docs:
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --workspace --no-deps --locked

## Named workloads, each against its limit in one run: make bench WORKLOADS="intake search". BENCH_DATA=folder runs the
## analyst's queries on a lake of one's own.
bench: tools .tools/python
	$(CARGO) build --release --locked -p forecourt -p bench
	./target/release/bench $(WORKLOADS)

## The last run beside bench/baseline.json: each ratio that is worse by more than 5 % and than the noise.
bench-compare:
	./target/release/bench compare

## Listing files as search shows them, against DuckDB on the same files: make check-imports DATA=folder.
check-imports: tools .tools/python
	$(CARGO) build --workspace --all-targets --locked
	.tools/python/bin/python scripts/check-imports $(DATA)

## The pages of a running server in a real browser (Debian's `chromium` package), with pictures to look at:
## make check-pages URL=http://127.0.0.1:8080 PICTURES=folder.
check-pages: .tools/pages
	.tools/pages/bin/python scripts/check-pages $(or $(URL),http://127.0.0.1:8080) $(or $(PICTURES),target/pictures)

# What Python has to have for a purpose: by version and checksum, in a folder of its own.
VENV = python3 -m venv $@ && $@/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	--only-binary :all: --requirement $< && touch $@

.tools/python: scripts/duckdb.requirements.txt
	$(VENV)

.tools/pages: scripts/pages.requirements.txt
	$(VENV)

.tools/clients: scripts/clients.requirements.txt
	$(VENV)

## The release and the pinned nats-server under PREFIX, ~/.local by default: bin/forecourt, lib/forecourt/nats-server.
install:
	scripts/get-nats-server --pinned
	$(CARGO) build --release --locked -p forecourt
	scripts/install-release $(PREFIX)

## A stripped archive and a Debian package in target/dist, with nats-server and the notices of all licences inside.
dist:
	scripts/get-nats-server --pinned
	$(CARGO) build --release --locked -p forecourt
	scripts/make-dist

## nats-server into .tools, unless a new enough one is there or on PATH.
tools:
	scripts/get-nats-server

clean:
	$(CARGO) clean
