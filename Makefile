# Each target makes .venv and installs what it needs first; nothing but Python 3.11, 3.12 or 3.13 is asked for.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := output/demo

.PHONY: demo test sweep torture fuzz bench lint clean

demo: $(VENV)/installed
	@echo "--- training on handwritten digits with learning rate 0.1, stopping after 16 of 24 epochs"
	$(BIN)/python resnet_cifar10.py --data digits --stages 2,2,2 --filters 16,32,64,128 --batch_size 32 \
	    --epochs 24 --stop_after 16 --checkpoints $(DEMO)/checkpoints --output $(DEMO)
	@echo "--- going on from the newest checkpoint with learning rate 0.01"
	$(BIN)/python resnet_cifar10.py --checkpoints $(DEMO)/checkpoints --model latest --lr 0.01
	@echo "--- plot and history: $(DEMO)/resnet_cifar10.png and .json; checkpoints: $(DEMO)/checkpoints"

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The long form of the suite: every stop, every number of workers, both backends.
sweep: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m sweep --timeout 3600

# A run stopped at every batch and at every step of every save, by every signal, on both backends: about an hour.
torture: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m torture --timeout 7200 -n 2 --dist worksteal

# Files mutated at random against every reader, two at a time: ten minutes.
fuzz: $(VENV)/installed-dev
	FUZZ_SECONDS=$${FUZZ_SECONDS:-200} $(BIN)/python -m pytest tests/test_fuzz.py -m fuzz --timeout 3600 -n 2 -v -rP

# Speed beside peers, about a quarter of an hour; for peers outside of the project see requirements-bench.txt.
bench: $(VENV)/installed-dev
	$(BIN)/python benchmarks/input_pipeline.py
	$(BIN)/python benchmarks/train_step.py --repeats 5
	$(BIN)/python benchmarks/floor.py
	$(BIN)/python benchmarks/build_dataset.py
	$(BIN)/python benchmarks/checkpoint.py --minutes 3

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo \
	    "Python 3.11, 3.12 or 3.13 is needed, for which TensorFlow is made, as PYTHON=python3.13 make ..."; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-dev: requirements.txt requirements-dev.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@ $(VENV)/installed
