# make serve, make test, make lint, make coverage. HOST and PORT say where to serve.
HOST ?= 127.0.0.1
PORT ?= 8000
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

export TOPTHREE_HOST ?= $(HOST)
export TOPTHREE_PORT ?= $(PORT)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help serve test lint coverage clean

help: ## List the commands.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

serve: $(VENV)/.installed ## Install what is missing, get the model, serve http://HOST:PORT.
	@exec $(BIN)/topthree serve

test: $(VENV)/.installed-test ## Run every test that needs no extra system package.
	$(BIN)/pytest -n auto

lint: $(VENV)/.installed-test ## Check style, formatting and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

coverage: $(VENV)/.installed-test ## Run the tests and require 95% of branches.
	$(BIN)/pytest -n auto --cov --cov-report=term

clean: ## Remove the virtual environment and all caches of the tools.
	rm -rf $(VENV) .coverage* .mypy_cache .pytest_cache .ruff_cache *.egg-info

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with make PYTHON=…")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# CPU builds are a tenth of the size; where their index does not answer, the ordinary builds serve as well.
	if $(BIN)/python -c 'import urllib.request as r; r.urlopen("$(TORCH_CPU_INDEX)/torch/", timeout=3)' 2>/dev/null; \
	then $(BIN)/pip install --index-url $(TORCH_CPU_INDEX) torch torchvision; fi
	$(BIN)/pip install --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/pip install --editable '.[test]'
	touch $@
