# Every target makes .venv if it is absent; nothing else is needed but Python 3.11+ and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: quickstart test test-slow soak bench bench-long gpu-check lint docs clean

$(STAMP): setup.py pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[eval,dev,peft,demo,fast]"
	touch $(STAMP)

quickstart: $(STAMP)  ## train a small model on mixed views of real code, run it on raw bytes
	$(BIN)/proxybyte quickstart

# One thread a worker: two that share two cores spin in each other's way.
test: $(STAMP)  ## the default suite, files shared out to WORKERS processes (2)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(or $(WORKERS),2) --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)  ## everything, the slow marks too
	$(BIN)/python -m pytest -m "slow or not slow"

# KILLS commands killed, SECONDS of damaged input, then of training, CALLS of generate; docs/reliability.md.
SOAK := OMP_NUM_THREADS=1 $(BIN)/python tests/soak
soak: $(STAMP)  ## what the tests try for seconds, for hours; counts in build/soak.json as they are made
	$(SOAK) kills --kills $(or $(KILLS),500)
	$(SOAK) fuzz --seconds $(or $(SECONDS),3600)
	$(SOAK) train --seconds $(or $(SECONDS),3600)
	$(SOAK) generate --calls $(or $(CALLS),10000)

bench: $(STAMP)  ## figures beside their baselines in at most 15 minutes; GROUP=stream runs one group
	$(BIN)/python tests/benchmarks $(GROUP)

bench-long: $(STAMP)  ## all of them, with the checkpoint that drafts need trained first (hours on a CPU)
	$(BIN)/python tests/benchmarks --long $(GROUP)

gpu-check: $(STAMP)  ## is the accelerator right, and how fast: two minutes, into build/gpu_check.json
	$(BIN)/python tests/benchmarks/gpu_check.py

lint: $(STAMP)  ## ruff, codespell, and mypy over the package as it is installed
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	git ls-files -z | xargs -0 $(BIN)/python -m codespell_lib
	rm -rf build/typecheck && $(BIN)/python setup.py --quiet build_py --build-lib build/typecheck
	MYPYPATH=build/typecheck $(BIN)/python -m mypy -p proxybyte

# In parallel Sphinx would read each module anew in every process; one thread reads them once.
docs: $(STAMP)  ## the documentation as a static site in build/site; warnings fail
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/python -m sphinx -W --keep-going -b html docs build/site

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
