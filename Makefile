# Each target but `gpu-check`, `constraints` and `clean` first creates .venv and installs what it needs, in the versions that
# constraints.txt pins. Requires Python 3.11, 3.12 or 3.13 and a network connection.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := output/demo

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test sweep torture fuzz bench gpu-check lint constraints clean

demo: $(VENV)/installed
	@echo "--- train on handwritten digits with learning rate 0.1, stop after 16 of 24 epochs"
	$(BIN)/python resnet_cifar10.py --data digits --stages 2,2,2 --filters 16,32,64,128 --batch_size 32 \
	    --epochs 24 --stop_after 16 --checkpoints $(DEMO)/checkpoints --output $(DEMO)
	@echo "--- resume from the newest checkpoint with learning rate 0.01"
	$(BIN)/python resnet_cifar10.py --checkpoints $(DEMO)/checkpoints --model latest --lr 0.01
	@echo "--- page, plot and history: $(DEMO)/resnet_cifar10.html, .png and .json; checkpoints: $(DEMO)/checkpoints"

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The long variants of the suite's tests: every stop, every number of workers, both backends.
sweep: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m sweep --timeout 3600

# Stop a run at every batch and at every step of every save, by each signal, on both backends: about an hour.
torture: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m torture --timeout 7200 -n 2 --dist worksteal

# Feed randomly mutated files to every reader, two at a time: ten minutes.
fuzz: $(VENV)/installed-dev
	FUZZ_SECONDS=$${FUZZ_SECONDS:-200} $(BIN)/python -m pytest tests/test_fuzz.py -m fuzz --timeout 3600 -n 2 -v -rP

# Measure speed beside peers, about 15 minutes. requirements-bench.txt lists the peers that are not dependencies.
bench: $(VENV)/installed-dev
	$(BIN)/python benchmarks/input_pipeline.py
	$(BIN)/python benchmarks/train_step.py --repeats 5
	$(BIN)/python benchmarks/floor.py
	$(BIN)/python benchmarks/build_dataset.py
	$(BIN)/python benchmarks/callbacks.py
	$(BIN)/python benchmarks/checkpoint.py --minutes 3

# Compare training steps on a GPU with the CPU's, and measure speed, in 8 minutes. Installs nothing: uses .venv if there is
# one, else $(PYTHON). For JAX: make gpu-check KERAS_BACKEND=jax
gpu-check:
	$(or $(wildcard $(BIN)/python),$(PYTHON)) benchmarks/gpu_check.py

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Resolve the pinned versions again, for both backends. Run on Python 3.11, then test before you commit.
constraints:
	$(PYTHON) -m venv --clear build/constraints
	build/constraints/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	echo "# Versions that the tests pass with, resolved by \`make constraints\` on Python 3.11. Only make uses them." > constraints.txt
	build/constraints/bin/python -m pip freeze >> constraints.txt

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo \
	    "TensorFlow supports Python 3.11 to 3.13; name one, for example: make PYTHON=python3.13 test"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: requirements.txt constraints.txt | $(VENV)/bin/python
	$(INSTALL) -r requirements.txt
	touch $@

DEV_FILES := requirements.txt requirements-dev.txt requirements-tensorboard.txt requirements-export.txt constraints.txt

$(VENV)/installed-dev: $(DEV_FILES) | $(VENV)/bin/python
	$(INSTALL) -r requirements-dev.txt
	touch $@ $(VENV)/installed
