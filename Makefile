# `make demo` and `make test` set up a virtual environment, build, and run; see README.md.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
SHELL := bash

# Rebuilt when the requirements or anything that is compiled changes.
STAMP := $(VENV)/.installed
SOURCES := requirements.txt pyproject.toml setup.py CMakeLists.txt $(shell find csrc -type f)

.PHONY: demo test test-slow bench gpu lint clean

$(STAMP): $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	$(BIN)/fastmtl info
	touch $@

demo: $(STAMP)
	$(BIN)/fastmtl train --model mtmlan --balancer dmtl --data synthetic:disaster \
	  --epochs 3 --hidden-size 64 --overwrite --out $(DEMO)/mtmlan
	$(BIN)/fastmtl train --model hgfn --balancer dmtl --data synthetic:disaster-multimodal \
	  --epochs 10 --batch-size 32 --lr 5e-4 --dropout 0.5 --overwrite --out $(DEMO)/hgfn

test: $(STAMP)
	$(BIN)/python -m pytest -q

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow

bench: $(STAMP)
	$(BIN)/python -m pytest -q benchmarks --benchmark-only --benchmark-columns=median,iqr,rounds

# On a GPU machine, in the environment that is active: build, GPU tests, benchmarks, a result file.
gpu:
	$(PYTHON) -m benchmarks.gpu
	$(PYTHON) -m benchmarks.gpu_report

lint:
	ruff check .
	ruff format --check .
	mypy
	clang-format --dry-run --Werror $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

clean:
	rm -rf build dist *.egg-info $(VENV) $(DEMO) fastmtl/_c*.so
