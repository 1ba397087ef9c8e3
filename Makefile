# Needs GNU make and Python 3.11 or later, nothing else. All paths are relative to this folder, so that the checkout may
# stand anywhere, under any name; call it from elsewhere with `make -C`.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# The first interpreter that is new enough. To choose: make PYTHON=/path/to/python3
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$name && break; done)

VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
# Stamps. They are made last, so an interrupted installation is taken up again.
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

# ---- Use ------------------------------------------------------------------------------------------------------------

.PHONY: install run
install: $(INSTALLED) ## Make .venv with the pinned run-time packages

run: $(INSTALLED) ## Serve on 127.0.0.1:$PORT (8000), with an embedded PostgreSQL unless PERENNIAL_DATABASE_URL is set
	@exec $(VENV_PYTHON) -m app.launcher --with-parent

.PHONY: import
import: $(INSTALLED) ## Import a file into a running service: FILE=orders.csv.gz MAP=map.json KEY=… [URL=…]; see docs/imports.md
	@PERENNIAL_KEY="$${KEY:-$$PERENNIAL_KEY}" $(VENV_PYTHON) -m app.import_file \
		"$$FILE" $${MAP:+--map "$$MAP"} $${URL:+--url "$$URL"}

# ---- Check ----------------------------------------------------------------------------------------------------------

.PHONY: test torture lint types imports drift check
test: $(INSTALLED_DEV) ## Run the tests; narrow them with ARGS="-k words"
	@OPENBLAS_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n auto --maxprocesses 4 $(ARGS)

torture: $(INSTALLED_DEV) ## Try the promises of docs/reliability.md, for hours; narrow with ARGS="--only kills --small"
	@OPENBLAS_NUM_THREADS=1 $(VENV_PYTHON) -m torture $(ARGS)

lint: $(INSTALLED_DEV) ## Check style and formatting
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .

types: $(INSTALLED_DEV) ## Check types
	@$(VENV_PYTHON) -m mypy

imports: $(INSTALLED_DEV) ## Check that imports run downward only
	@$(VENV)/bin/lint-imports

drift: $(INSTALLED_DEV) ## Check that openapi/ and migrations/ say what the code says
	@$(VENV_PYTHON) -m app.openapi --check
	@$(VENV_PYTHON) -m app.migrate --check

check: lint types imports drift ## All of lint, types, imports and drift

# ---- Measure --------------------------------------------------------------------------------------------------------

.PHONY: bench
bench: $(INSTALLED_DEV) ## Measure speed by ratios and write docs/performance.md; SMALL=1 takes two minutes and writes nothing
	@OPENBLAS_NUM_THREADS=1 $(VENV_PYTHON) -m benchmarks $(if $(SMALL),--small) $(ARGS)

# ---- Develop --------------------------------------------------------------------------------------------------------

.PHONY: format openapi migrate revision lock clean
format: $(INSTALLED_DEV) ## Format the code and mend what can be mended
	@$(VENV_PYTHON) -m ruff check --fix .
	@$(VENV_PYTHON) -m ruff format .

openapi: $(INSTALLED) ## Write openapi/openapi.json from the code
	@$(VENV_PYTHON) -m app.openapi

migrate: $(INSTALLED) ## Bring the database of PERENNIAL_DATABASE_URL up to date (make run does so itself)
	@$(VENV_PYTHON) -m app.migrate

revision: $(INSTALLED) ## Draft a migration from the tables in the code: make revision m="what changes"
	@test -n "$$m" || { echo 'Say what changes: make revision m="add a column"' >&2; exit 2; }
	@$(VENV_PYTHON) -m app.migrate --revision "$$m"

lock: $(VENV)/uv/bin/uv ## Pin the packages anew; UPGRADE=1 takes the newest versions
	@for pins in "requirements.txt" "requirements-telemetry.txt --extra telemetry" "requirements-dev.txt --group dev"; do \
		$(VENV)/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
			--no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade) pyproject.toml -o $$pins || exit; \
	done

clean: ## Remove .venv and caches; data stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- The virtual environment ----------------------------------------------------------------------------------------

define make_venv
@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c '$(NEW_ENOUGH)'; then \
	echo "Perennial needs Python 3.11 or later, but '$(or $(PYTHON),python3)' is missing or older." >&2; \
	echo "Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; fi
@$(VENV_PYTHON) -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV)
endef

INSTALL = $(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes

$(INSTALLED): requirements.txt
	$(make_venv)
	@echo "Installing the packages of requirements.txt into $(VENV) ..."
	@$(INSTALL) -r requirements.txt
	@touch $@

$(INSTALLED_DEV): requirements-dev.txt requirements.txt
	$(make_venv)
	@echo "Installing the packages of requirements-dev.txt into $(VENV) ..."
	@$(INSTALL) -r requirements-dev.txt
	@touch $(INSTALLED) $@

$(VENV)/uv/bin/uv: | $(INSTALLED)
	@$(VENV_PYTHON) -m venv $(VENV)/uv
	@$(VENV)/uv/bin/python -m pip install --quiet --disable-pip-version-check uv
