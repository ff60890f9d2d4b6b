# Every target sets up what it needs: a virtual environment in .venv, the native build, the installed package.
# Nothing is installed outside this folder. `make help` lists the targets.

VENV := .venv
ORACLE_VENV := .venv-oracle
TRAIN_VENV := .venv-train
LLAMA_VENV := .venv-llama
BIN := $(VENV)/bin
MODEL ?= tiny
TEST_ARGS ?=
FUZZ_SECONDS ?= 600
BENCH_ARGS ?=
TINY_FOLDER ?= ../quipu-tiny
# The set-up must not eat what a user pipes into `make chat`, hence the redirected input.
PIP_OPTIONS := --disable-pip-version-check --no-input -qq
pip = $(1)/bin/python -m pip $(2) $(PIP_OPTIONS) $(3) </dev/null

BUILD_INPUTS := pyproject.toml LICENSE CMakeLists.txt \
	$(shell find native src -type f -not -name '*.pyc' -not -name '*.so' -not -path '*/__pycache__/*')
NATIVE_SOURCES = $(shell find native benchmarks -name '*.cpp' -o -name '*.h' -o -name '*.inl')

# Tests and builds see the installed package, never a stray source folder or another site's packages.
unexport PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE := 1

.PHONY: help chat test native-test inspect-kernels lint oracle bench wheel fuzz tiny tiny-evaluate clean setup
.DELETE_ON_ERROR:
.NOTPARALLEL:

help:
	@echo "make chat     set up, then chat with the embedded model (MODEL=file.gguf for another)"
	@echo "make test     set up, then run all tests (TEST_ARGS='-k name' for some)"
	@echo "make native-test      check the kernels of every instruction set here, and under qemu those of ARM"
	@echo "make inspect-kernels  print the inner loops of all kernels; fails if one spills"
	@echo "make lint     ruff, mypy, clang-format, import order, documentation links"
	@echo "make oracle   comparisons with transformers; installs PyTorch (a large download) in $(ORACLE_VENV)"
	@echo "make bench    docs/performance.md: speed, memory, accuracy beside llama.cpp; an hour, after ten minutes to"
	@echo "              build it in $(LLAMA_VENV) (BENCH_ARGS='-t 4' for all benchmarks)"
	@echo "make wheel    build dist/*.whl in isolation and check it"
	@echo "make fuzz     coverage-guided fuzzing of the GGUF reader for FUZZ_SECONDS=$(FUZZ_SECONDS)"
	@echo "make tiny     train the embedded models in TINY_FOLDER=$(TINY_FOLDER); about an hour on two cores"
	@echo "make tiny-evaluate  measure the models in TINY_FOLDER"
	@echo "make clean    remove everything that the other targets made"

chat: $(VENV)/.installed
	@$(BIN)/quipu run $(MODEL)

test: $(VENV)/.installed $(VENV)/.test
	$(BIN)/pytest --durations=10 --ignore=tests/oracle $(TEST_ARGS)

# The kernels alone: no Python, no package. ARM's run where a cross compiler and an emulator are installed (Debian's
# g++-aarch64-linux-gnu and qemu-user-static), on a processor with all features and on two with fewer.
ARM_CXX := $(shell command -v aarch64-linux-gnu-g++)
ARM_QEMU := $(firstword $(shell command -v qemu-aarch64-static) $(shell command -v qemu-aarch64))
NATIVE_CMAKE = PATH="$(abspath $(BIN)):$$PATH" cmake -S . -G Ninja -DCMAKE_BUILD_TYPE=Release -DQUIPU_NATIVE_TESTS=ON

build/native/native_tests: $(VENV)/.build $(BUILD_INPUTS)
	@$(NATIVE_CMAKE) -B build/native >/dev/null
	@PATH="$(abspath $(BIN)):$$PATH" cmake --build build/native

build/native-arm/native_tests: $(VENV)/.build $(BUILD_INPUTS)
	@$(NATIVE_CMAKE) -B build/native-arm -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
		-DCMAKE_CXX_COMPILER=$(ARM_CXX) >/dev/null
	@PATH="$(abspath $(BIN)):$$PATH" cmake --build build/native-arm

native-test: build/native/native_tests $(if $(and $(ARM_CXX),$(ARM_QEMU)),build/native-arm/native_tests)
	build/native/native_tests
ifneq ($(and $(ARM_CXX),$(ARM_QEMU)),)
	for cpu in max cortex-a76 cortex-a57; do $(ARM_QEMU) -cpu $$cpu build/native-arm/native_tests || exit 1; done
else
	@echo "no aarch64 cross compiler or no qemu: the kernels of ARM were not run"
endif

inspect-kernels: build/native/native_tests $(if $(ARM_CXX),build/native-arm/native_tests)
	$(BIN)/python tools/inspect_kernels.py --measured avx2 build/native/CMakeFiles/quipu_core.dir/native/simd/*/kernels.cpp.o
ifneq ($(ARM_CXX),)
	$(BIN)/python tools/inspect_kernels.py --objdump $(patsubst %g++,%objdump,$(ARM_CXX)) \
		build/native-arm/CMakeFiles/quipu_core.dir/native/simd/*/kernels.cpp.o
endif

# Runs every check, then fails if one of them did.
lint: $(VENV)/.installed $(VENV)/.lint
	@status=0; \
	run() { echo "$$*" | cut -c1-120; "$$@" || status=1; }; \
	run $(BIN)/ruff check .; \
	run $(BIN)/ruff format --check .; \
	run $(BIN)/mypy; \
	run $(BIN)/clang-format --dry-run -Werror $(NATIVE_SOURCES); \
	run $(BIN)/python tools/check_imports.py; \
	run $(BIN)/python tools/check_docs.py; \
	run $(BIN)/python tools/check_size.py; \
	exit $$status

oracle: $(ORACLE_VENV)/.installed
	$(ORACLE_VENV)/bin/pytest --durations=5 tests/oracle $(TEST_ARGS)

# Runs every benchmark, goes on after one that fails, writes docs/performance.md, then fails if one of them did.
# `make bench BENCH_ARGS='-t 4 --no-llama'` passes options to all that compare engines.
bench: $(VENV)/.installed $(VENV)/.bench $(if $(QUIPU_LLAMA_PYTHON),,$(LLAMA_VENV)/.ready)
	@status=0; \
	run() { name=$$1; script=$$2; shift 2; echo "== $$script $$*"; \
		$(BIN)/python benchmarks/$$script --json build/bench/$$name.json "$$@" || status=1; }; \
	run import_time import_time.py; \
	run attention attention.py -r 3 --contexts 512,4096,32768; \
	run accuracy accuracy.py $(BENCH_ARGS); \
	run first_token first_token.py -r 5 $(BENCH_ARGS); \
	run memory memory.py $(BENCH_ARGS); \
	run decode-1b-Q4_K_M decode.py -r 5 $(BENCH_ARGS); \
	run decode-0.5b-Q4_K_M decode.py -r 5 --shape qwen2-0.5b $(BENCH_ARGS); \
	run decode-1b-Q8_0 decode.py -r 5 --type Q8_0 $(BENCH_ARGS); \
	run prefill-1b-Q4_K_M prefill.py -r 5 $(BENCH_ARGS); \
	run prefill-0.5b-Q4_K_M prefill.py -r 5 --shape qwen2-0.5b $(BENCH_ARGS); \
	run batch batch.py -r 3 $(BENCH_ARGS); \
	run context-f16 context.py -r 3 $(BENCH_ARGS); \
	run context-q8_0 context.py -r 3 --kv-type q8_0 $(BENCH_ARGS); \
	run threads threads.py -r 3 $(BENCH_ARGS); \
	run serving serving.py -r 3 $(BENCH_ARGS); \
	run speculation speculation.py -r 3; \
	run sampling sampling.py -r 5; \
	run weight_types weight_types.py -r 3 $(BENCH_ARGS); \
	$(BIN)/python benchmarks/report.py || status=1; \
	exit $$status

wheel: $(VENV)/.build
	rm -rf dist
	$(call pip,$(VENV),wheel,--no-deps --wheel-dir dist --config-settings build-dir=build/isolated .)
	$(BIN)/python tools/check_wheel.py dist/*.whl

fuzz: $(VENV)/.installed $(VENV)/.fuzz
	$(BIN)/python tests/fuzz/fuzz_gguf.py --seconds $(FUZZ_SECONDS) --folder build/fuzz

tiny: $(TRAIN_VENV)/.installed
	PYTHONPATH=tools $(TRAIN_VENV)/bin/python -m tiny.train $(TINY_FOLDER)

tiny-evaluate: $(VENV)/.installed
	PYTHONPATH=tools $(BIN)/python -m tiny.evaluate $(TINY_FOLDER) --limit

clean:
	rm -rf build dist $(VENV) $(ORACLE_VENV) $(TRAIN_VENV) $(LLAMA_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup: $(VENV)/.installed

# A fresh virtual environment at $(1) with a pip that knows dependency groups.
define create_venv
	@echo "== creating $(1)"
	@python=$$(sh tools/find_python.sh) && rm -rf $(1) && "$$python" -m venv $(1) </dev/null
	@$(call pip,$(1),install,--upgrade 'pip>=25.1')
endef

$(VENV)/.build: pyproject.toml tools/find_python.sh
	$(call create_venv,$(VENV))
	@echo "== installing the build tools"
	@$(call pip,$(VENV),install,--group build)
	@touch $@

# The wheel is what gets installed and tested. Without build isolation a rebuild compiles only what changed.
$(VENV)/.installed: $(VENV)/.build $(BUILD_INPUTS)
	@echo "== building quipu"
	@rm -rf build/wheel
	@PATH="$(abspath $(BIN)):$$PATH" $(call pip,$(VENV),wheel,--no-build-isolation --no-deps --wheel-dir build/wheel .)
	@echo "== installing quipu and what it needs"
	@$(call pip,$(VENV),uninstall,--yes quipu-llm) 2>/dev/null
	@$(call pip,$(VENV),install,build/wheel/*.whl)
	@touch $@

$(VENV)/.test $(VENV)/.lint $(VENV)/.fuzz $(VENV)/.bench: $(VENV)/.%: $(VENV)/.build
	@echo "== installing the tools of make $*"
	@$(call pip,$(VENV),install,--group $*)
	@touch $@

# PyTorch comes first and alone, so that no other package chooses its build.
$(ORACLE_VENV)/.ready: pyproject.toml tools/find_python.sh
	$(call create_venv,$(ORACLE_VENV))
	@echo "== installing PyTorch"
	@$(call pip,$(ORACLE_VENV),install,--group torch)
	@echo "== installing transformers"
	@$(call pip,$(ORACLE_VENV),install,--group oracle)
	@touch $@

$(ORACLE_VENV)/.installed: $(ORACLE_VENV)/.ready $(VENV)/.installed
	@echo "== installing quipu beside transformers"
	@$(call pip,$(ORACLE_VENV),uninstall,--yes quipu-llm) 2>/dev/null
	@$(call pip,$(ORACLE_VENV),install,build/wheel/*.whl)
	@touch $@

$(TRAIN_VENV)/.ready: pyproject.toml tools/find_python.sh
	$(call create_venv,$(TRAIN_VENV))
	@echo "== installing PyTorch"
	@$(call pip,$(TRAIN_VENV),install,--group torch)
	@$(call pip,$(TRAIN_VENV),install,--group train)
	@touch $@

$(TRAIN_VENV)/.installed: $(TRAIN_VENV)/.ready $(VENV)/.installed
	@echo "== installing quipu beside PyTorch"
	@$(call pip,$(TRAIN_VENV),uninstall,--yes quipu-llm) 2>/dev/null
	@$(call pip,$(TRAIN_VENV),install,build/wheel/*.whl)
	@touch $@

$(LLAMA_VENV)/.ready: pyproject.toml tools/find_python.sh
	$(call create_venv,$(LLAMA_VENV))
	@echo "== building llama.cpp (about ten minutes)"
	@$(call pip,$(LLAMA_VENV),install,--group llama)
	@touch $@
