# make demo and make test do all the set-up; the second time they are fast

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OLDEST := .venv-oldest
# shapes are checked by beartype in every test but those marked unchecked: inside a graph, a checker would break it
SHAPES := --jaxtyping-packages=batvit,beartype.beartype

# what torch 2.10 warns of itself: scripts that it compiles with, and events of its profiler
OLD_WARNINGS := -W 'ignore:`torch.jit:DeprecationWarning' \
	-W 'ignore:Warning:UserWarning'

PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

# many processes import the same libraries: the first keeps what it compiled, whatever the environment says
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test test-all test-oldest coverage check package results format clean

install: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --no-compile --editable ".[all]" --group dev
	touch $(STAMP)

demo: install
	$(BIN)/batvit demo

# every test with its first parameters; then with all the others
test: MEMBERS := first
test-all: MEMBERS := rest
test test-all: install
	$(PYTEST) --members $(MEMBERS) -m "not unchecked" $(SHAPES)
	$(PYTEST) --members $(MEMBERS) -m unchecked

# make test with the lowest versions that pyproject.toml names; torch 2.10 warns of code of its own, and
# makes empty values of our types where it looks for tensors, so that shapes cannot be checked
test-oldest: install
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --all-extras --group dev \
		--python $(BIN)/python --output-file $(OLDEST).txt pyproject.toml
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(OLDEST)
	$(BIN)/uv pip install --quiet --python $(OLDEST)/bin/python --requirements $(OLDEST).txt
	$(BIN)/uv pip install --quiet --python $(OLDEST)/bin/python --no-deps --editable .
	$(OLDEST)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadscope \
		--no-loadscope-reorder --members first $(OLD_WARNINGS)

# what the tests reach; they take half as long again
coverage: install
	$(BIN)/python -m coverage erase
	PYTEST_ADDOPTS="--cov --cov-append --cov-report=" $(MAKE) test
	PYTEST_ADDOPTS="--cov --cov-append --cov-report=" $(MAKE) test-all
	$(BIN)/python -m coverage report --fail-under=95

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# what is published: built, looked through, and tried in an environment that has nothing else
package: install
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python benchmarks/package.py dist

# the tables of README.md and docs/results.md, from docs/results
results: install
	$(BIN)/python benchmarks/results.py

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(OLDEST) $(OLDEST).txt dist .pytest_cache .mypy_cache .ruff_cache .coverage
