# Everything sets itself up: `make serve` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: serve test lint soak clean

serve: $(VENV)/.serve
	@exec $(BIN)/dormouse serve --config config.toml $(ARGS)

PYTEST := $(BIN)/python -m pytest -m "not soak and not gpu"

# Two at a time, but for those with a server of their own: these alone, so that what they time is theirs.
# ARGS may choose tests of which one half has none, which pytest answers with 5.
test: lint
	OMP_NUM_THREADS=1 $(PYTEST) --ignore tests/e2e -n 2 --dist loadfile $(ARGS) || [ $$? -eq 5 ]
	$(PYTEST) tests/e2e $(ARGS) || [ $$? -eq 5 ]

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(VENV)/.test
	$(BIN)/python -m pytest -m soak --timeout 1800 $(ARGS)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.serve

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
