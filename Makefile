# GNU make, git and Python 3.10 or newer are all that must be there. Everything else is installed into .venv;
# the shells and tools that the tests drive come from apt when root runs make, and are named in words otherwise.

PYTHON ?= python3
BIN := .venv/bin
SHELL_TEMPLATES := $(wildcard installer_stub/activate/*.sh)
SHELL_SCRIPTS := .ci/run $(shell find fixtures tests benchmarks -name '*.sh' 2>/dev/null | LC_ALL=C sort)

# POSIX shells take ENV from the environment as their start-up file: only the one given to make counts, and
# none is handed on under that name.
ifeq ($(origin ENV),command line)
export PACK_DEMO_ENV := $(ENV)
endif
unexport ENV

.PHONY: help demo test test-all bench lint lint-ruff lint-format lint-types lint-shell clean venv programs compilers channels

help:
	@echo 'make demo                 pack a real environment, move it, hide the source, activate it, run it'
	@echo 'make demo ENV=NAME        the same with an environment of yours: a name or a path'
	@echo 'make test                 the tests of every change; ARGS="-k shebang" runs some of them'
	@echo 'make test-all             all tests, with those that take long'
	@echo 'make bench                measure ours beside the peers; ARGS="--rounds 1 --size small" does less'
	@echo 'make lint                 ruff, mypy, shellcheck'
	@echo 'make clean                remove what the above made, but for what was built into .cache'
	@echo
	@echo 'PYTHON=/path/to/python3   which Python, 3.10 or newer, .venv is made with'
	@echo 'PACK_TEST_CHANNEL=DIR     a conda channel to install from, instead of building one'
	@echo 'PACK_TEST_CACHE=DIR       where what tests build once is kept, instead of .cache'

# Channels are built, if at all, before pytest starts its clock; so is the stub. ENV and PACK_TEST_CHANNEL need no
# compiler.
demo: venv $(if $(PACK_DEMO_ENV)$(PACK_TEST_CHANNEL),,compilers)
	@$(BIN)/python -m fixtures.demo $${PACK_DEMO_ENV:+"$$PACK_DEMO_ENV"}

test: channels
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow' $(ARGS)

test-all: channels
	PACK_TEST_ALL=1 $(BIN)/python -m pytest -n 2 --dist worksteal -o faulthandler_timeout=4000 $(ARGS)

# Not a test: it says how fast, and takes a quarter of an hour.
bench: channels
	@$(PYTHON) fixtures/prepare.py peers
	$(BIN)/python -m benchmarks $(ARGS)

lint: lint-ruff lint-format lint-types lint-shell

lint-ruff: venv
	$(BIN)/ruff check .

lint-format: venv
	$(BIN)/ruff format --check .

lint-types: venv
	$(BIN)/mypy

# Templates have no shebang, since they are sourced, by every POSIX shell; other scripts run under bash.
lint-shell: venv
	$(BIN)/shellcheck -s bash $(SHELL_SCRIPTS)
	$(BIN)/shellcheck -s sh $(SHELL_TEMPLATES) installer_stub/header.sh

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.cache/*' -prune -exec rm -rf {} +

venv:
	@$(PYTHON) fixtures/prepare.py venv

programs compilers:
	@$(PYTHON) fixtures/prepare.py $@

channels: venv programs
	@$(BIN)/python -m fixtures.prepare channels
