# What people run, and what CI runs.
.PHONY: run test fuzz chaos check check-imports check-pages format lint docs bench tools clean

CARGO ?= cargo

## Start everything on a generated market, and say what to open. It is the build that the tests use, with all they need,
## so that both together compile the engines once; `cargo build --release` makes the one to run in earnest.
run: tools
	$(CARGO) build --workspace --all-targets --locked
	./target/debug/forecourt up --demo

## All tests: real nats-server, real files, real clients.
test: tools .tools/clients
	$(CARGO) test --workspace --locked --no-fail-fast

## Every entry fed with spoiled events, longer than `make test` does: make fuzz SECONDS=600.
fuzz:
	FUZZ_SECONDS=$(or $(SECONDS),60) $(CARGO) test --workspace --locked --test fuzz -- --nocapture

## Seeded plans of kills, pauses and damage while a market is played: make chaos PLANS=200 SEED=1. On a small disk that is
## filled, with a clock that jumps: both are this command's own.
chaos: tools
	scripts/get-faketime
	$(CARGO) test --workspace --locked --no-run
	scripts/with-small-disk env CHAOS_FAKETIME=$(or $(FORECOURT_TOOLS),$(CURDIR)/.tools)/libfaketime.so.1 \
		CHAOS_PLANS=$(or $(PLANS),10) CHAOS_SEED=$(or $(SEED),1) \
		$(CARGO) test --workspace --locked --test system -- chaos --nocapture

## Everything CI checks.
check: format lint test docs

format:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --workspace --all-targets --locked -- --deny warnings

docs:
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --workspace --no-deps --locked

## Named workloads, each against its raw limit, in one run. BENCH_DATA=folder asks the analyst's queries of a lake of one's own; BENCH_KPIS_DATA=folder measures KPIs over data of one's own, and publishes into it.
bench: tools .tools/python
	$(CARGO) build --release --workspace --locked
	./target/release/bench $(WORKLOADS)

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

## nats-server into .tools, unless a new enough one is there or on PATH.
tools:
	scripts/get-nats-server

clean:
	$(CARGO) clean
