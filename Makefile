# Everything stands on `install`: an environment of its own in .venv, with the package built and installed as a user would have it.
#
#   make demo      set up, then pretrain a small ELECTRA on text that is already there (about five minutes on two cores)
#   make test      set up, then run the tests, and the Triton kernels in Triton's interpreter
#   make test-emulated   the tests of the ops once more, with the CUDA kernels in place of the CPU's, in the emulator of tests/cuda (g++, CUDA headers)
#   make bench     set up, with the peers, then measure against them (about ten minutes on two cores); records and report in benchmark-results
#
# On a machine with a GPU, with what its PYTHON has (torch with CUDA, nvcc, cmake, ninja, scikit-build-core, pybind11, pytest), no network:
#
#   make gpu-acceptance OUT=directory   build, test, sanitize and measure, in under ten minutes; all results go to OUT
#   make bench-gpu OUT=directory        build, then measure against the peers that PYTHON has (needs typer and rich as well)
#   make sanitize OUT=directory         build, then compute-sanitizer's memcheck and racecheck over small calls of every kernel
#
# Variables:  PYTHON=python3.12   TORCH=torch==2.14.1 (any version from 2.11)   ELECTRA_CUDA=AUTO|ON|OFF   ARGS="more options"

PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   ?= .venv
ARGS   ?=
OUT    ?= build/gpu-acceptance

BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
SOURCES := pyproject.toml CMakeLists.txt README.md $(shell find csrc electra_fast -type f -not -name '*.pyc' -not -name '*.so' 2>/dev/null)

.PHONY: help install develop demo test test-emulated bench bench-gpu gpu-acceptance sanitize lint format wheel clean

help:
	@sed -n '/^#  /s/^#  //p' $(MAKEFILE_LIST)

install: $(STAMP)

$(VENV)/.tools: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found: install Python 3.10 or newer, or name it with PYTHON="; exit 2; }
	@command -v c++ >/dev/null || { echo "error: no C++ compiler: install g++ 11 or newer (Debian, Ubuntu: apt-get install g++)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet $(TORCH) numpy
	$(BIN)/pip install --quiet "scikit-build-core>=0.11" "pybind11>=2.13" ninja "cmake>=3.25"
	@touch $@

$(STAMP): $(VENV)/.tools $(SOURCES)
	$(BIN)/pip install --quiet --no-build-isolation ".[test,lint]"
	@touch $@

develop: $(VENV)/.tools
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[test,lint]"
	@touch $(STAMP)

demo: install
	$(BIN)/electra-fast demo $(ARGS)

test: install
	$(BIN)/pytest -n 2 --dist worksteal --cov --cov-report=$(if $(ARGS),term) $(ARGS)
	$(if $(ARGS),,TRITON_INTERPRET=1 $(BIN)/pytest -n 2 --dist worksteal -m "not compiles_only" --cov --cov-append --cov-report=term --cov-fail-under=90 tests/triton_kernels)

test-emulated: install
	ELECTRA_TEST_EMULATED=1 $(BIN)/pytest -n 2 --dist worksteal tests/ops -k emulated $(ARGS)

$(VENV)/.peers: $(STAMP)
	$(BIN)/pip install --quiet onnx onnxruntime torchao
	@touch $@

bench: $(VENV)/.peers
	$(BIN)/electra-fast bench --device cpu --minutes 8.5 $(ARGS)

bench-gpu:
	$(PYTHON) benchmarks/gpu_acceptance.py --out $(OUT) --steps build
	PYTHONPATH=build/gpu-site $(PYTHON) build/gpu-site/bin/electra-fast bench --device cuda --out $(OUT) $(ARGS)

gpu-acceptance:
	$(PYTHON) benchmarks/gpu_acceptance.py --out $(OUT) $(ARGS)

sanitize:
	$(PYTHON) benchmarks/gpu_acceptance.py --out $(OUT) --steps build sanitize

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.tools
	$(BIN)/pip wheel --no-build-isolation --no-deps --wheel-dir dist .

clean:
	rm -rf build dist $(VENV) .pytest_cache .ruff_cache .coverage* htmlcov
