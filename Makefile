# make demo    installs everything into .venv, trains on scanned digits, samples, writes pictures to demo_output
# make test    installs everything into .venv and runs the tests
# make test-processes   the tests of training and sampling in several processes, one after the other
# make lint    ruff, clang-format and mypy
# make soak      kills, broken files and random calls in great number, about 30 minutes (FUZZ_SECONDS=600: 5 hours)
# make sanitize  the ops' tests and random calls on a core with AddressSanitizer and UndefinedBehaviorSanitizer
# make bench   the benchmarks of kernels, networks, training and multi-resolution runs on this machine
# make gpu-report   build, tests, sanitizers and all benchmarks on a GPU, with $(PYTHON)'s packages and no network, into
#                   benchmarks/results/gpu or $(OUT); ARGS: other options of benchmarks/gpu_report.py
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LINT_STAMP := $(VENV)/.lint_installed
NATIVE := $(wildcard csrc/*.h csrc/*.cpp csrc/*/*.h csrc/*/*.cpp csrc/*/*.cu)
CXX_FILES := $(NATIVE) $(wildcard python_tests/emulation/*.h python_tests/*/*.cpp python_tests/*.cpp)

OP_TESTS := $(patsubst %,python_tests/test_%.py,cld_step conv3x3 dsm_loss engine_parts instance_norm_plus langevin_step \
	langevin_table_step noise norm_fusions perturb philox thread_counts upsample_bicubic2x)

.PHONY: demo test test-processes lint format soak sanitize bench gpu-report clean

demo: $(STAMP)
	$(BIN)/langevin-ext demo --out demo_output

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile python_tests

test-processes: $(STAMP)
	TEST_PROCESSES=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest python_tests/test_sharding.py \
		python_tests/test_merge.py python_tests/test_parallel_training.py

lint: $(LINT_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check . --exclude "*.md"
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	$(BIN)/mypy

format: $(LINT_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format . --exclude "*.md"
	$(BIN)/clang-format -i $(CXX_FILES)

# Coverage-guided fuzzing is skipped where atheris has no build for this Python.
soak: $(STAMP)
	-$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt --only-binary :all: atheris
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m soak --figures benchmarks/results/reliability.json python_tests/soak

# A copy of the package with a core of its own, so that the one in use stays; the library must be loaded before Python.
sanitize: $(STAMP)
	rm -rf build/sanitize && mkdir -p build/sanitize && cp -r langevin_ext build/sanitize/
	rm -f build/sanitize/langevin_ext/_C*.so
	LANGEVIN_SANITIZE=1 $(BIN)/python setup.py --quiet build_ext --build-lib build/sanitize
	PYTHON="$(abspath $(BIN))/python" .ci/sanitized $(OP_TESTS)

bench: $(STAMP)
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/python benchmarks/network.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/multiresolution.py

gpu-report:
	$(PYTHON) benchmarks/gpu_report.py $(if $(OUT),--out "$(OUT)") $(ARGS)

$(STAMP): setup.py pyproject.toml constraints.txt $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[test,demo]'
	touch $@

$(LINT_STAMP): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build langevin_ext/_C*.so langevin_ext.egg-info demo_output
