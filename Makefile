# make demo      the main job on the embedded data set: which normaliser, and why
# make test      every test
# make lint      style and types
# make sanitize  the C++ kernels against a plain loop, under AddressSanitizer and UndefinedBehaviorSanitizer
# make races     the same under ThreadSanitizer: does a thread store what is another's?
# make bench     the figures of benchmarks/RESULTS.md
# make bench-gpu the tests and figures that need a GPU, in 8 minutes
# make wheel     dist/normwright-VERSION-py3-none-PLATFORM.whl, with the kernels
#
# Each makes its own virtual environment and compiles the kernels the first time, and is quick the second.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Under --jobs, ninja would take make's job server for its own, whose files make keeps closed to it.
unexport MAKEFLAGS

# Where bytecode is not kept, as in many containers, each process that the tests start compiles normwright again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint sanitize sanitized large races bench bench-gpu wheel clean

# Compiles what was edited in csrc/. Where normwright was installed without its kernels there is nothing to do.
RENEW_NATIVE := test ! -d build/editable/installed/normwright || { \
	$(BIN)/cmake --build build/editable -- --quiet && $(BIN)/cmake --install build/editable >/dev/null; }

demo: $(VENV)/.lab
	@$(RENEW_NATIVE)
	@$(BIN)/normwright compare mlp --data digits --depth 6 --activation sigmoid \
		--norm none,batch,layer,group,rms --batch-size 32 --lr 0.1,0.3,1 --epochs 10 --seeds 5 --out demo

# The tests of the operators once more on Triton's kernels, in its interpreter; some of them compile the kernels, too.
INTERPRETED := tests/backends/triton $(addprefix tests/backends/test_,lstm_cell.py masks.py refusals.py) \
	$(addprefix tests/functional/test_,operators.py hard_inputs.py running_statistics.py running_buffers.py channel_moments.py identities.py out.py)

# Two processes share the cores: threads that spin while they wait would keep the other's from working. Files are
# handed out as they come, with the many short ones of src/ last: by the number of their tests, as pytest-xdist
# sorts them otherwise, the last would be those of one long test, beside which a core has nothing to do.
test: $(VENV)/.dev
	@$(RENEW_NATIVE)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder
	@if $(BIN)/python -c 'import triton' 2>/dev/null; then \
		OMP_NUM_THREADS=1 NORMWRIGHT_TRITON=interpret $(BIN)/pytest -n auto $(INTERPRETED); \
	else \
		echo "Triton is not installed: its kernels are not tested"; \
		case ",$$NORMWRIGHT_REQUIRE," in *,triton,*) exit 1;; esac; \
	fi

lint: $(VENV)/.packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# With the sanitizers; and the objects that the library is made of, with larger tensors. The first needs no PyTorch,
# and with --jobs it is compiled while pip unpacks it.
sanitize: sanitized large

# Each in two halves at once: a case takes one core.
in_halves = $(1) & $(1) --seed 3; second=$$?; wait $$! && exit $$second

sanitized: SANITIZERS := address,undefined
sanitized: FUZZ := --cases 1250
races: SANITIZERS := thread
races: FUZZ := --cases 3000
sanitized races: $(VENV)/.tools
	@$(BIN)/cmake -S . -B build/$@ -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
		-DNORMWRIGHT_LIBRARY=OFF -DNORMWRIGHT_SANITIZE=$(SANITIZERS) -DCMAKE_COMPILE_WARNING_AS_ERROR=ON >/dev/null
	@$(BIN)/cmake --build build/$@ --target fuzz -- --quiet
	$(call in_halves,build/$@/fuzz $(FUZZ))

large: $(VENV)/.dev
	@$(BIN)/cmake --build build/editable --target fuzz -- --quiet
	$(call in_halves,build/editable/fuzz --cases 75 --most 3000000)

wheel: $(VENV)/.dev
	NORMWRIGHT_NATIVE=1 $(BIN)/pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps -w dist .

bench: $(VENV)/.dev
	@$(RENEW_NATIVE)
	$(BIN)/python -m benchmarks.recording
	$(BIN)/python -m benchmarks.import_time
	$(BIN)/python -m benchmarks.operators
	$(BIN)/python -m benchmarks.networks

bench-gpu: $(VENV)/.dev
	$(BIN)/python -m benchmarks.gpu

clean:
	rm -rf $(VENV) build dist demo

# PyTorch comes first, because the kernels are compiled against its headers, and without isolation, which would
# not use the pinned build tools.
PIP := $(BIN)/pip install $(PIP_FLAGS) --quiet --disable-pip-version-check -c constraints.txt
INSTALL := $(PIP) --no-build-isolation -e

$(VENV)/.lab: pyproject.toml constraints.txt | $(VENV)/.tools
	@echo "Installing normwright and its pinned dependencies; the first time takes a few minutes"
	@$(PIP) torch scikit-build-core
	@$(INSTALL) '.[lab]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.packages
	@$(INSTALL) '.[dev]'
	@touch $@

# What is pinned without normwright: with --jobs mypy reads while the kernels are compiled.
$(VENV)/.packages: constraints.txt | $(VENV)/.tools
	@echo "Installing all that normwright is tested with; the first time takes a few minutes"
	@$(PIP) -r constraints.txt
	@touch $@

$(VENV)/.tools: constraints.txt
	@test -x $(BIN)/python || { echo "Making a virtual environment in $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@$(PIP) cmake ninja
	@touch $@
