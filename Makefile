# Everything a fresh machine needs: `make train`, `make test`. Both build .venv first.
PYTHON ?= python3
RUN := runs/memory-s9
PY := .venv/bin/python

.PHONY: train test test-slow test-avx2 lint types check docs

train: .venv/installed  ## train RMC on MemoryS9 (or resume it) and evaluate it on Farama's MiniGrid
	@if [ -f $(RUN)/config.json ]; then $(PY) train/ppo.py --resume $(RUN); \
	else $(PY) train/ppo.py --env MiniGrid-MemoryS9-v0 --core rmc --run-dir $(RUN); fi
	$(PY) train/evaluate.py $(RUN)

test: .venv/installed  ## the tests, on two cores
	$(PY) -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: .venv/installed  ## the long ones: trainings, whole commands, exports
	$(PY) -m pytest -n 2 --dist worksteal -m slow

test-avx2: .venv/installed  ## numerical tests, on a newer CPU as if it had AVX2 only
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 RMC_AGENTS_NATIVE=avx2 $(PY) -m pytest -n 2 --dist worksteal \
		tests/cores tests/agent tests/rl/test_ppo.py tests/rl/test_rollout.py tests/supervised tests/benchmarks/test_speed.py

lint: .venv/installed  ## format and lint
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: .venv/installed  ## static types
	$(PY) -m pyright

check: lint types test test-slow docs  ## everything that a change has to pass

docs: .venv/installed  ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	@mkdir -p .venv/typing && ln -sfn ../../envs .venv/typing/rmc_envs  # for pyright, see pyproject.toml
	@touch $@
