# make serve, make test, make lint, make coverage. HOST and PORT say where to serve.
HOST ?= 127.0.0.1
PORT ?= 8000
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
# Each process begins with neighbours, so that what the tests of a file share is made once.
PYTEST := $(BIN)/pytest -n auto --dist worksteal
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
NEEDS := Python 3.11 or newer is needed. Install it, or name the one you have: make PYTHON=python3.12
NO_CPU_INDEX := The index of PyTorch's CPU builds does not answer. The ordinary builds are installed, and $(VENV) takes 5.7 GB. \
To avoid this, press Ctrl-C, and name a mirror: make TORCH_CPU_INDEX=ADDRESS

export TOPTHREE_HOST ?= $(HOST)
export TOPTHREE_PORT ?= $(PORT)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help serve test test-slow test-browser test-cluster screens docs lint coverage fuzz bombs soak overload chaos schema-check lock audit image-check clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: $(VENV)/.installed ## Install what is missing, get the model, serve http://HOST:PORT.
	@exec $(BIN)/topthree serve

test: $(VENV)/.installed-test ## Run all tests but the slow ones, and those that need a browser.
	$(PYTEST) -m "not slow and not cluster"

test-slow: $(VENV)/.installed-test ## Run the tests that train, convert or install, which take a third of all the time.
	$(PYTEST) -m "slow and not cluster"

test-browser: $(VENV)/.installed-browser ## Test the page in Chromium, Firefox and WebKitGTK; install them if possible. AGAIN=yes runs what failed last.
	$(BIN)/pytest tests/browser -n 2 --dist loadfile $(if $(AGAIN),--last-failed --last-failed-no-failures none)

test-cluster: $(VENV)/.installed-test ## Run a batch on a cluster of Ray, of which a node is killed; this takes minutes.
	$(BIN)/pytest -m cluster

screens: $(VENV)/.installed-browser ## Take the screenshots of docs/screens.
	PYTHONPATH=tests/support $(BIN)/python tests/browser/screens.py

docs: $(VENV)/.installed ## Write the tables of the documents again, from the code that they describe.
	$(BIN)/python scripts/write_docs.py

lint: $(VENV)/.installed-test ## Run ruff, ruff format, mypy strict on app/, and import-linter.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

coverage: $(VENV)/.installed-test ## Run all tests, the slow ones too, and require 95% of branches.
	$(PYTEST) --cov --cov-report=term

fuzz: $(VENV)/.installed ## Send damaged files to the decoders for 30 minutes; SECONDS=60 makes it a minute, INPUTS=1000000 a million files.
	$(BIN)/python scripts/fuzz_images.py $(if $(SECONDS),--seconds $(SECONDS)) $(if $(INPUTS),--inputs $(INPUTS))

bombs: $(VENV)/.installed ## Send files that are costly to decode beside good ones, which must not be affected. SECONDS=20 makes it shorter.
	$(BIN)/python scripts/bombs.py $(if $(SECONDS),--seconds $(SECONDS))
	$(BIN)/python scripts/hostile_bombs.py $(if $(SECONDS),--seconds $(SECONDS))

soak: $(VENV)/.installed ## Send 20,000 mixed requests and require flat memory; SECONDS=60 makes it a minute.
	$(BIN)/python scripts/soak.py $(if $(SECONDS),--seconds $(SECONDS))

overload: $(VENV)/.installed ## Offer four times what the service can answer; it must still answer 90% of its best, and its probes.
	$(BIN)/python scripts/overload.py $(if $(SECONDS),--seconds $(SECONDS))

chaos: $(VENV)/.installed ## Kill, stop and reload the service, and send it slow clients and costly files, under load; only requests of what was killed may be lost.
	$(BIN)/python scripts/chaos.py $(if $(SECONDS),--seconds $(SECONDS))

schema-check: $(VENV)/.installed-schema ## Send requests that schemathesis generates from the API's document for 5 minutes; SECONDS=60 makes it one.
	$(BIN)/python scripts/schema_check.py $(if $(SECONDS),--seconds $(SECONDS))

lock: $(VENV)/.installed ## Write requirements-serve.txt and requirements-cuda.txt, the packages of the container, from pyproject.toml.
	@$(PIP) install --quiet uv
	$(BIN)/python scripts/lock.py

audit: $(VENV)/.installed-audit ## Compare the container's packages with the public advisories, before a release; needs the network.
	@$(BIN)/python scripts/audit.py
	@$(BIN)/python scripts/audit.py --lock requirements-cuda.txt

image-check: $(VENV)/.installed-test ## Build the container image without a container engine, run it, try it (root, Debian).
	scripts/image_check.sh

clean: ## Remove the virtual environment, all built files, and the tools' caches.
	rm -rf $(VENV) .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here. $(NEEDS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "This is Python {}.{}. $(NEEDS)".format(*sys.version_info))'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	|| { echo "This Python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing topthree and its dependencies into $(VENV). The first time this takes some minutes."
	@# pip shows what it is doing, since silence of minutes looks like a standstill.
	@# No working pip means no environment, or one whose making was interrupted or whose Python has gone.
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@# CPU builds are a tenth of the size; where their index does not answer, the ordinary builds serve as well.
	@if $(BIN)/python -c 'import urllib.request as r; r.urlopen("$(TORCH_CPU_INDEX)/torch/", timeout=3)' 2>/dev/null; \
	then $(PIP) install --index-url $(TORCH_CPU_INDEX) torch torchvision; \
	elif [ "$$(uname -s)" = Linux ] && ! $(BIN)/python -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("torch"))' 2>/dev/null; \
	then echo "$(NO_CPU_INDEX)"; fi
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "Installing the tools for tests and checks into $(VENV)."
	@$(PIP) install --quiet --editable '.[test]'
	@touch $@

$(VENV)/.installed-audit: $(VENV)/.installed
	@$(PIP) install --quiet --editable '.[audit]'
	@touch $@

$(VENV)/.installed-schema: $(VENV)/.installed
	@$(PIP) install --quiet --editable '.[schema]'
	@touch $@

$(VENV)/.installed-browser: $(VENV)/.installed-test
	@tests/browser/install_chromium.sh
	@$(PIP) install --quiet --editable '.[browser]'
	@touch $@
