# Two commands: `make ablation` runs the paper's four rows to a table, `make test` runs the tests.
# Each makes what it needs: a virtual environment in .venv with the tested versions.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LAUNCH := $(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no

# `make pretrained` makes the shipped networks anew.

.PHONY: install ablation pretrained smoke test slow lint clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch setuptools wheel
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[deepspeed,dev]"
	touch $@

ablation: install
	$(LAUNCH) launch/run.py experiments/ablation.yaml

pretrained: install  # about three hours on two CPU cores
	$(LAUNCH) launch/run.py experiments/pretrain_compact.yaml
	$(BIN)/python launch/ship_compact.py runs plugins/anastyle_plugins/pretrained

smoke: install
	$(LAUNCH) launch/run.py experiments/smoke.yaml

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --numprocesses 2 --dist loadfile -m "not slow and not gpu"

slow: install
	$(BIN)/python -m pytest --quiet -m "slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf $(VENV) build dist *.egg-info
