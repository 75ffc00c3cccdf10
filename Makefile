# Every target sets itself up: a virtual environment in .venv with Foveate and what the target needs.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Threads beyond the cores only fight each other; one variable for every library that asks.
export PYTHONUNBUFFERED := 1

.PHONY: setup demo test test-slow test-oldest lint check bench gpu docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Foveate needs Python 3.11 or newer; run make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev,demo]'
	touch $(STAMP)

demo: setup          ## train, evaluate and predict on the whole Earth; pictures in demo-output/
	$(BIN)/foveate demo --out demo-output --overwrite

test: setup          ## the test suite, warnings as errors
	$(BIN)/python -m pytest -q -W error -m 'not slow' -n 2

test-slow: setup     ## the tests that take minutes
	$(BIN)/python -m pytest -q -W error -m slow

test-oldest:         ## the suite with the lowest versions that pyproject.toml allows, in .venv-oldest
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet uv
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct --editable '.[dev,demo]'
	.venv-oldest/bin/python -m pytest -q -m 'not slow' -n 2

lint: setup          ## style, complexity, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test     ## what CI runs

bench: setup         ## speed and memory; tables and benchmarks/results/*.json
	$(BIN)/python benchmarks/extraction.py
	$(BIN)/python benchmarks/inference.py --network tiny
	$(BIN)/python benchmarks/inference.py --megapixels 25 100
	$(BIN)/python benchmarks/pipeline.py

gpu: setup           ## on a machine with a card: its tests, then speed against what the card does alone and MONAI
	$(BIN)/python -m pytest -q -W error -m gpu -n 0
	$(BIN)/python benchmarks/gpu.py

docs: setup          ## the documentation site, in site/; runs the tutorials, those on real data where FOVEATE_DATA has them
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv .venv-oldest site demo-output
