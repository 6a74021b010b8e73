# `make demo` and `make test` install what they need; the others say what they do.
PYTHON ?= python3
export TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
KSERVE := $(VENV)/.installed-kserve
NODE := $(VENV)/.installed-node
GO_PROGRAMS := .go-programs/.built
MLSERVER := .venv-mlserver/.installed
CODE := protos server router clients examples tests benchmarks
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test soak mlserver check protos fmt bench build clean
.DEFAULT_GOAL := help

help:  ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup: $(STAMP)  ## install everything into .venv; TORCH_INDEX=URL: torch from there

$(STAMP): pyproject.toml constraints.txt
	@PYTHON=$(PYTHON) tools/setup.sh $(VENV)
	@touch $@

$(KSERVE): $(STAMP)
	@echo "kserve: installing KServe's client (300 MB)"
	@$(BIN)/pip install --quiet -c constraints.txt -e '.[kserve]'
	@touch $@

$(NODE): $(STAMP) clients/node/package-lock.json
	@echo "node: installing Node and the packages of clients/node (232 MB)"
	@$(BIN)/pip install --quiet -c constraints.txt -e '.[node]'
	@if $(BIN)/python -m tests.conformance.javascript; then touch $@; \
	else echo "node: no packages from npm's registry: tests that need them are skipped"; fi

$(GO_PROGRAMS): $(STAMP) $(wildcard tests/conformance/gotools/*/go.*)
	@mkdir -p .go-programs
	@if $(BIN)/python -m tests.conformance.go_programs; then touch $@; \
	else echo "go: no grpcurl, grpc-health-probe, ghz, jaeger: tests that need what is absent are skipped"; fi

$(MLSERVER): tests/conformance/mlserver/requirements.txt
	@echo "mlserver: installing MLServer into .venv-mlserver (a minute, 1.2 GB)"
	@test -x .venv-mlserver/bin/python || $(PYTHON) -m venv .venv-mlserver
	@.venv-mlserver/bin/pip install --quiet -r $<
	@touch $@

demo: $(STAMP)  ## the whole thing on this machine, on real handwriting, in under a minute
	@$(BIN)/coalmine demo

test: $(STAMP) $(KSERVE) $(NODE) $(GO_PROGRAMS)  ## unit, integration and end-to-end tests
	@$(BIN)/python -m tests.conformance.runners
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile tests/unit tests/integration tests/conformance
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/e2e

soak: $(STAMP)  ## ten minutes of load with a fault each minute, and a table of what failed
	$(BIN)/python -m tests.soak.run --minutes 10

mlserver: $(STAMP) $(MLSERVER)  ## a real MLServer beside our server, compared by the router
	$(BIN)/python -m pytest --capture=no tests/conformance/test_mlserver.py

check: $(STAMP)  ## format, lint, types, import rules, generated code, the wire
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy protos server router clients examples/demo tests benchmarks
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/check_house.py
	@PYTHON=$(PYTHON) tools/check-protos.sh
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protos/0.1.0.binpb

protos:  ## generate the code of protos/ again
	PYTHON=$(PYTHON) tools/protos.sh

fmt: $(STAMP)  ## format, and mend what can be mended
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

bench: $(STAMP)  ## measure, and write benchmarks/RESULTS.md
	@$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks.run

build:  ## make the wheel; try it in three empty environments: bare, router, server
	PYTHON=$(PYTHON) tools/build.sh

clean:  ## remove what the others made
	rm -rf $(VENV) .venv-protos .venv-mlserver .go-programs clients/node/node_modules tests/conformance/.build clients/java/target clients/java/example/target tests/conformance/java/runner/target dist .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
