# Two commands: `make ablation` runs the paper's four rows to a table, `make test` runs the tests.
# Each makes what it needs: a virtual environment in .venv with the tested versions.
# `make pretrained` makes the shipped networks anew.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
LAUNCH := $(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no

.PHONY: install ablation pretrained smoke test slow lint clean

install: $(VENV)/installed

# torch first: deepspeed is built against it
$(VENV)/installed: pyproject.toml setup.cfg framework/anastyle/tested.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch setuptools wheel
	$(PIP) --no-build-isolation --editable ".[deepspeed]"
	touch $@

$(VENV)/tools: $(VENV)/installed
	$(PIP) --no-build-isolation --editable ".[dev]"
	touch $@

ablation: install
	$(LAUNCH) launch/run.py experiments/ablation.yaml

smoke: install
	$(LAUNCH) launch/run.py experiments/smoke.yaml

pretrained: install  # about two and a half hours on two CPU cores
	$(LAUNCH) launch/run.py experiments/pretrain_compact.yaml
	$(BIN)/python launch/ship_compact.py runs plugins/anastyle_plugins/pretrained

test: $(VENV)/tools
	tests/tools/install-postgresql.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet --numprocesses 2 --dist loadfile -m "not slow and not gpu"

slow: $(VENV)/tools
	tests/tools/install-postgresql.sh
	$(BIN)/python -m pytest --quiet -m "slow"

lint: $(VENV)/tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

clean:
	rm -rf $(VENV) build dist *.egg-info
