# make demo       install, search on real images, export and classify: the five-minute tour
# make test       what CI runs, without the slow tests
# make test-all   every test, and what they cover: counting that takes half as long again
# make check      formatting, lint, types, import contracts
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo
TEST_WORKERS ?= 2

# One compute thread for each test process: two that fight over two processors take three times as long.
test test-all: export OMP_NUM_THREADS = 1
test test-all: export MKL_NUM_THREADS = 1

.PHONY: demo install install-dev check format test test-all clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

demo: install
	@if [ -e $(RUN) ]; then echo "replacing $(RUN), with anything a resume added to it (RUN=elsewhere keeps it)"; fi
	rm -rf $(RUN)
	$(BIN)/vitsearch run examples/digits.yaml --out $(RUN)
	$(BIN)/vitsearch export $(RUN) --select knee --out $(RUN)/bundle
	$(BIN)/python examples/save_test_image.py $(RUN)/digit.png
	$(BIN)/vitsearch predict $(RUN)/bundle $(RUN)/digit.png

check: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: install-dev
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadgroup -m "not slow"

test-all: install-dev
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadgroup --cov --cov-report=term:skip-covered

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage* htmlcov
