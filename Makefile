# make demo    the main job on the embedded data set: which normaliser, and why
# make test    every test
# make lint    style and types
# make bench   the figures of benchmarks/RESULTS.md
#
# Each makes its own virtual environment the first time and is quick the second.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench clean

demo: $(VENV)/.lab
	@$(BIN)/normwright compare mlp --data digits --depth 6 --activation sigmoid \
		--norm none,batch,layer,group,rms --batch-size 32 --lr 0.1,0.3,1 --epochs 20 --seeds 3 --out demo

test: $(VENV)/.dev
	$(BIN)/pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.recording
	$(BIN)/python -m benchmarks.layers
	$(BIN)/python -m benchmarks.import_time

clean:
	rm -rf $(VENV) demo

$(VENV)/.lab: pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory install EXTRA=lab STAMP=.lab

$(VENV)/.dev: pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory install EXTRA=dev STAMP=.dev

.PHONY: install
install:
	@test -x $(BIN)/python || { echo "Making a virtual environment in $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing normwright[$(EXTRA)] and its pinned dependencies; the first time takes a few minutes"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRA)]'
	@touch $(VENV)/$(STAMP)
