# Everything a fresh machine needs: `make train`, `make test`. Both build .venv first.
PYTHON ?= python3
RUN := runs/memory-s9
PY := .venv/bin/python

.PHONY: train test check

train: .venv/installed  ## train RMC on MemoryS9 (or go on where it was) and evaluate it on Farama's MiniGrid
	@if [ -f $(RUN)/config.json ]; then $(PY) train/ppo.py --resume $(RUN); \
	else $(PY) train/ppo.py --env MiniGrid-MemoryS9-v0 --core rmc --run-dir $(RUN); fi
	$(PY) train/evaluate.py $(RUN)

test: .venv/installed  ## every test
	$(PY) -m pytest

check: .venv/installed  ## format, lint, types, tests
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m pyright
	$(PY) -m pytest

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
