# Everything sets itself up: `make serve` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: serve test lint soak gpu clean

serve: $(VENV)/.serve
	@exec $(BIN)/dormouse serve --config config.toml $(ARGS)

# What tests/clients runs: clients with dependencies of their own, kept out of the product's environment.
NODE := tests/clients/node
CLIENTS := .venv-clients/.installed .venv-litellm/.installed $(NODE)/node_modules/.installed

PYTEST := $(BIN)/python -m pytest
HERE := not soak and not gpu
TWO := -n 2 --dist loadfile --no-loadscope-reorder

# Linters beside the tests that leave room for them, then alone those that measure time. ARGS may choose tests
# of which one half has none, which pytest answers with 5. Whatever the environment says, bytecode is written:
# the tests start sixty processes that import the same.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/.test $(CLIENTS)
	@$(MAKE) --no-print-directory -j2 lint together
	$(PYTEST) -m "$(HERE) and alone" tests/e2e $(ARGS) || [ $$? -eq 5 ]

# Two at a time, each with one thread and in the order of collecting.
together:
	OMP_NUM_THREADS=1 $(PYTEST) -m "$(HERE) and not alone" $(TWO) $(ARGS) || [ $$? -eq 5 ]

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(VENV)/.test
	$(BIN)/python -m pytest -m soak --timeout 1800 $(ARGS)

# With a python that has torch for CUDA, which a fresh environment would not have; without a GPU it says what it
# would run.
gpu:
	@$(PYTHON) -m tests.bench.gpu $(ARGS)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.serve

.venv-%/.installed: tests/clients/requirements-%.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# Without npm the tests of clients for node are skipped.
$(NODE)/node_modules/.installed: $(NODE)/package-lock.json
	@if command -v npm > /dev/null; then cd $(NODE) && npm ci --silent --ignore-scripts && touch ../../../$@; fi

clean:
	rm -rf $(VENV) .venv-* $(NODE)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
