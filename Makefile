# `make demo` and `make test` set up a virtual environment, build, and run; see README.md.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
SHELL := bash
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# CMake and Ninja of the virtual environment before any others.
TOOLS := PATH="$(abspath $(BIN)):$$PATH"

# Tests run in several processes of one thread each: OpenMP threads that share a core with others
# wait for one another, and that is many times slower.
WORKERS ?= 2
# Each begins with a part of the tests that follow one another, which share what takes long to make,
# and takes over from one that is behind.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

# Rebuilt when the requirements or anything that is compiled changes.
STAMP := $(VENV)/.installed
SOURCES := requirements.txt pyproject.toml setup.py CMakeLists.txt $(shell find csrc -type f)

.PHONY: demo test test-slow fuzz sanitize torture lint docs sdist wheel notes cuda bench gpu clean

$(STAMP): $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -r requirements.txt
	$(TOOLS) $(PIP) install --no-build-isolation -e .
	$(BIN)/fastmtl info
	touch $@

demo: $(STAMP)
	$(BIN)/fastmtl demo --out $(DEMO)

# The suite compiles the Triton kernels. Running them takes Triton's interpreter where there is no
# GPU, and that is on or off for a whole process: hence a second call, whatever the first found.
# Triton is for Linux.
INTERPRETED := $(if $(filter Linux,$(shell uname -s)),TRITON_INTERPRET=1 $(PYTEST) \
  tests/gpu/test_parity.py tests/fuzz/test_corpus.py -k triton,true)
test: $(STAMP)
	$(PYTEST); status=$$?; $(INTERPRETED) && exit $$status

test-slow: $(STAMP)
	$(PYTEST) -m slow

# Kills, full disks and damaged files: nothing of a run is lost or resumed wrongly; see tests/torture.
KILLS ?= 1000
torture: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture --kills $(KILLS)

# Random calls of every op for so many seconds, and a tenth of that on the CUDA kernels and on
# Triton's, which are slow here; then damaged files of every kind; see tests/fuzz, tests/torture.
SECONDS_OF_FUZZING ?= 600
FUZZ := OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz
fuzz: $(STAMP)
	$(FUZZ) --seconds $(SECONDS_OF_FUZZING)
	$(FUZZ) --seconds $$(($(SECONDS_OF_FUZZING) / 10)) --on native-cuda
	TRITON_INTERPRET=1 $(FUZZ) --seconds $$(($(SECONDS_OF_FUZZING) / 10))
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture.files --cases 2000 --seconds $(SECONDS_OF_FUZZING)

# The native kernels and the CUDA kernels on the host under AddressSanitizer and
# UndefinedBehaviorSanitizer, whose runtime has to be loaded before Python's, and whose word pytest
# may not capture, since it is the last; then the CUDA kernels under the search for races of
# tests/cuda/host_shim/races.cpp. Without -O3, which would take long to compile.
# `SANITIZED=tests/ops/test_task_gru.py` runs fewer tests.
SANITIZED ?= tests/ops tests/backends tests/cuda tests/gpu/test_parity.py
SANITIZERS := address,undefined
SANITIZED_BUILD := build/sanitized
RUNTIME = $(foreach library,libasan.so libubsan.so libstdc++.so,$(shell $(CXX) -print-file-name=$(library)))
sanitize: $(STAMP)
	$(TOOLS) cmake -G Ninja -S . -B $(SANITIZED_BUILD) -DFASTMTL_SANITIZE=$(SANITIZERS) \
	  -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	  -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	$(TOOLS) cmake --build $(SANITIZED_BUILD) --target _cpu
	LD_PRELOAD="$(RUNTIME)" FASTMTL_SANITIZE=$(SANITIZERS) FASTMTL_SANITIZED=$(SANITIZED_BUILD) \
	  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	  UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive \
	  $(BIN)/python -m pytest -q --capture=sys -p tests.sanitized $(SANITIZED)
	FASTMTL_RACES=1 $(PYTEST) tests/cuda tests/gpu/test_parity.py -k "not triton"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(shell find csrc tests/cuda/host_shim \
	  -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

# The site, in build/site; a broken link or a docstring that cannot be read is an error (with --quiet
# it would not be).
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Installs what a user would get, from the sdist alone, and uses it away from this directory. What it
# runs on is borrowed from the virtual environment above, by a .pth file; what it is built with is not.
SDIST := build/sdist
SITE := -c "import site; print(site.getsitepackages()[0])"
sdist: $(STAMP)
	rm -rf $(SDIST)
	$(BIN)/python -c "from setuptools import build_meta; build_meta.build_sdist('$(SDIST)')" > /dev/null
	$(BIN)/python -m venv $(SDIST)/venv
	$(BIN)/python $(SITE) > "$$($(SDIST)/venv/bin/python $(SITE))/borrowed.pth"
	FASTMTL_NATIVE=on $(SDIST)/venv/bin/python -m pip --quiet --disable-pip-version-check \
	  install --no-deps --ignore-installed $(SDIST)/*.tar.gz
	cd $(SDIST) && venv/bin/fastmtl info && venv/bin/python -c "import fastmtl, torch; \
	  assert '$(SDIST)' in fastmtl.__file__; \
	  print(fastmtl.ops.focal_loss(torch.zeros(4, 2), torch.ones(4, 2)))"

# A wheel as it is published, from the sdist, with the CUDA kernels where nvcc is: its libraries looked
# through, its page checked, installed in a virtual environment of its own and used there. PyTorch brings
# libgomp, so the wheel must not. `FASTMTL_CUDA=off make wheel` leaves the CUDA kernels out.
WHEEL := build/wheel
wheel: $(STAMP)
	rm -rf $(WHEEL)
	$(BIN)/python -c "from setuptools import build_meta; build_meta.build_sdist('$(WHEEL)')" > /dev/null
	$(BIN)/python -m venv $(WHEEL)/tools
	$(WHEEL)/tools/bin/python -m pip --quiet --disable-pip-version-check install -r packaging/requirements.txt
	FASTMTL_NATIVE=on FASTMTL_CUDA=$${FASTMTL_CUDA:-$(if $(shell command -v nvcc),on,off)} \
	  CUDA_ARCHS="$(CUDA_ARCHS)" $(WHEEL)/tools/bin/python -m pip --quiet --disable-pip-version-check \
	  wheel --no-deps --wheel-dir $(WHEEL)/built $(WHEEL)/*.tar.gz
ifeq ($(shell uname -s),Linux)
	PATH="$(abspath $(WHEEL))/tools/bin:$$PATH" auditwheel show $(WHEEL)/built/*.whl
	PATH="$(abspath $(WHEEL))/tools/bin:$$PATH" auditwheel repair --exclude libgomp.so.1 \
	  --wheel-dir $(WHEEL)/dist $(WHEEL)/built/*.whl
else
	mkdir $(WHEEL)/dist && cp $(WHEEL)/built/*.whl $(WHEEL)/dist
endif
	$(WHEEL)/tools/bin/twine check --strict $(WHEEL)/dist/*.whl $(WHEEL)/*.tar.gz
	$(BIN)/python -m venv $(WHEEL)/venv
	$(BIN)/python $(SITE) > "$$($(WHEEL)/venv/bin/python $(SITE))/borrowed.pth"
	$(WHEEL)/venv/bin/python -m pip --quiet --disable-pip-version-check \
	  install --no-deps --ignore-installed $(WHEEL)/dist/*.whl
	cd $(WHEEL) && venv/bin/fastmtl info && venv/bin/python -c "import fastmtl, fastmtl._cpu, torch; \
	  assert '$(WHEEL)' in fastmtl.__file__; \
	  print(fastmtl.ops.focal_loss(torch.zeros(4, 2), torch.ones(4, 2)))"
	ls -sh $(WHEEL)/dist

# What CHANGELOG.md says of a version, as a release shows it: `make -s notes VERSION=0.2.0`.
VERSION ?= Unreleased
notes:
	@.ci/notes $(VERSION)

# Compiles the CUDA extension, for which nvcc is enough, and leaves the installed package alone.
# CUDA_ARCHS="90" or "80;90" in place of CMakeLists.txt's list takes less time.
CUDA_ARCHS ?=
CUDA_BUILD := build/cuda
cuda: $(STAMP)
	rm -rf $(CUDA_BUILD)
	start=$$SECONDS; $(TOOLS) FASTMTL_NATIVE=off FASTMTL_CUDA=on CUDA_ARCHS="$(CUDA_ARCHS)" \
	  $(BIN)/python setup.py -q build_ext --build-temp $(CUDA_BUILD) --build-lib $(CUDA_BUILD)/lib \
	  && echo "compiled in $$((SECONDS - start)) s"
	ls -sh $(CUDA_BUILD)/lib/fastmtl/_cuda*.so
	PYTHONPATH=$(CUDA_BUILD)/lib/fastmtl $(BIN)/python -c "import _cuda; print(_cuda.isa())"

bench: $(STAMP)
	$(BIN)/python -m pytest -q benchmarks/ops benchmarks/training --benchmark-only --benchmark-columns=median,iqr,rounds

# On a GPU machine, in the environment that is active: build, GPU tests, figures, docs/gpu.md.
# GPU="--resume" goes on where a run ended, GPU="--only smoke,figures" does a part of one.
GPU ?=
GPU_OUT ?= build/gpu
gpu:
	$(PYTHON) -m benchmarks.gpu --out $(GPU_OUT) $(GPU); status=$$?; \
	  $(PYTHON) -m benchmarks.gpu.report $(GPU_OUT) && exit $$status

clean:
	rm -rf build dist *.egg-info $(VENV) $(DEMO) fastmtl/_c*.so
