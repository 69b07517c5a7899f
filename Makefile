# Needs only Python 3.11+ and make: every target sets up .venv by itself, from the hashed lock files.
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
UV = $$(command -v uv || echo $(BIN)/uv)
# Compiled at install: where Python is told to write no bytecode, every start would compile a hundred modules anew.
INSTALL = $(UV) pip install --quiet --compile-bytecode --python $(PY)
LOCK = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header $(LOCK_ARGS)
NODE_SDK := tests/sdk/node/node_modules/.stamp
HEROKU_CLI := tests/interop/node_modules/.stamp
ARGS ?=
# The package with its hot modules compiled (scripts/native.py); anew after any change of the source.
NATIVE_FOLDER := build/native
# How well the C compiler works on it: 0 is done soonest, for tests, which ask what it does and not how fast.
OPT ?= 2
COMPILED := $(NATIVE_FOLDER)/penstock/compiled.txt
# NATIVE=1: serve that; in tests, what runs as a server of its own.
WITH_NATIVE = $(if $(NATIVE),$(COMPILED))
# The whole suite in three processes, a file in one of them: it waits for servers and programs as much as it computes.
SPREAD = --numprocesses 3 --dist loadfile
# The tests that PENSTOCK_SOAK=1 gives their full counts.
SOAKED = tests/app/test_crash.py tests/app/test_wreck.py tests/app/test_exact_limits.py tests/app/test_nothing_held.py \
	tests/store/test_leases_model.py tests/ledger/test_leases_model.py tests/control/test_openapi.py \
	tests/engine tests/providers/test_embedded_failures.py tests/providers/test_embedded_grammar.py

# uv does not read pip's settings: where only pip is told about a mirror, hand that on.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

.PHONY: help setup serve native test soak lint types check bench lock docs clean
.DELETE_ON_ERROR:

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

serve: $(VENV)/.runtime $(WITH_NATIVE) ## Set up and serve; NATIVE=1 compiled; PENSTOCK_* variables and ARGS="--port 0" are passed on
	@$(if $(NATIVE),PYTHONPATH=$(NATIVE_FOLDER)) exec $(BIN)/penstock serve $(ARGS)

native: $(COMPILED) ## Compile what every request runs through (needs a C compiler and the headers of Python)

test: $(VENV)/.dev $(NODE_SDK) $(HEROKU_CLI) $(WITH_NATIVE) ## Run the tests; ARGS="tests/house -k size" narrows them; NATIVE=1 on a compiled server
	$(if $(NATIVE),PENSTOCK_NATIVE=$(NATIVE_FOLDER)) $(PY) -m pytest $(or $(ARGS),$(SPREAD))

soak: $(VENV)/.dev ## Kills, exact limits and storms at full counts (hours); ARGS="tests/app/test_crash.py -k worker" narrows them
	PENSTOCK_SOAK=1 $(PY) -m pytest $(or $(ARGS),$(SOAKED))

lint: $(VENV)/.dev ## ruff (rules and format) and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev ## mypy --strict
	$(BIN)/mypy

check: lint types test ## Everything that CI runs

bench: $(VENV)/.dev $(WITH_NATIVE) ## Measure against an upstream double, nginx and other gateways; NATIVE=1 a compiled server
	$(if $(NATIVE),PYTHONPATH=$(CURDIR)/$(NATIVE_FOLDER)) $(PY) -m bench $(ARGS)

setup: $(VENV)/.dev $(NODE_SDK) $(HEROKU_CLI) ## Install everything, run nothing

docs: $(VENV)/.dev ## Write the generated tables of docs/
	$(PY) scripts/reference_pages.py

lock: $(VENV)/.uv ## Bring the lock files in step with pyproject.toml; LOCK_ARGS=--upgrade takes new versions
	$(LOCK) pyproject.toml --group build -o requirements.lock
	$(LOCK) pyproject.toml --group build --group dev -c requirements.lock -o requirements-dev.lock
	echo uv | $(LOCK) - -o requirements-uv.lock

clean: ## Remove the environment and every cache (not your data folder)
	rm -rf $(VENV) tests/sdk/node/node_modules tests/interop/node_modules .mypy_cache .ruff_cache .import_linter_cache .hypothesis .cache build dist

$(VENV)/.python:
	@sh scripts/make_venv.sh $(VENV)
	@touch $@

$(VENV)/.uv: $(VENV)/.python requirements-uv.lock
	@command -v uv >/dev/null || $(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip >/dev/null
	@command -v uv >/dev/null || $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@touch $@

# The project itself last, editable, built by the hatchling of the lock: no unpinned build environment.
$(VENV)/.runtime: $(VENV)/.uv requirements.lock pyproject.toml
	@echo "Installing what Penstock needs into $(VENV) ..." >&2
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps --no-build-isolation --offline -e .
	@$(PY) -m compileall -q src
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

$(COMPILED): $(VENV)/.dev scripts/native.py scripts/native.ini $(shell find src/penstock -name '*.py')
	@echo "Compiling ..." >&2
	@$(PY) scripts/native.py --opt-level $(OPT) $(NATIVE_FOLDER)

# npm packages of the tests; without npm the tests that need them say so and skip.
$(NODE_SDK): tests/sdk/node/package.json tests/sdk/node/package-lock.json
	@if command -v npm >/dev/null; then npm ci --prefix tests/sdk/node --silent --no-fund --no-audit && touch $@; fi

# The Heroku CLI, 980 packages of 410 MB, for tests/interop alone. None of its install scripts is wanted: they compile.
$(HEROKU_CLI): tests/interop/package.json tests/interop/package-lock.json
	@if command -v npm >/dev/null; then echo "Installing the Heroku CLI of the tests ..." >&2; \
		npm ci --prefix tests/interop --omit=optional --ignore-scripts --silent --no-fund --no-audit && touch $@; fi
