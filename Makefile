# The same commands for people and for CI. `make setup` makes the environment that the rest uses.

# An extra package index for torch. PyTorch's own CPU builds (no CUDA, 200 MB instead of 3 GB):
#   make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# Parallel test processes.
JOBS ?= 2

# Versions of the packages: exact ones from constraints/locked.txt, or with NEWEST=1 the newest that
# pyproject.toml allows, or with OLDEST=1 its floors. Each choice has environments of its own.
VERSIONS := $(if $(NEWEST),newest,$(if $(OLDEST),oldest,locked))
CONSTRAINTS := $(if $(NEWEST),,constraints/$(VERSIONS).txt)
SUFFIX := $(if $(filter locked,$(VERSIONS)),,-$(VERSIONS))

VENV := .venv$(SUFFIX)
RUNTIME_VENV := .venv-runtime$(SUFFIX)
LOCK_VENV := .venv-lock
# The Python that an environment is made with: the same as last time, unless named.
PYTHON ?= $(or $(shell sed -n 's/^executable = //p' $(VENV)/pyvenv.cfg 2>/dev/null),python3)
BIN := $(VENV)/bin
DEMO := demo/shot-transitions-divided-onnx
SAMPLES := runtime/timesformer_runtime/sample_clips

.PHONY: help setup lock demo test test-versions lint accuracy soak fuzz fuzz-models clean
.PHONY: bench bench-peers bench-video bench-guards
.PHONY: check-without-vnni check-openvino check-cpp check-gunicorn
.PHONY: check-serve bench-serve check-ray bench-ray check-spark
.PHONY: check-arm64 count-arm64 check-small-board
.PHONY: train train-divided train-joint train-space
.DELETE_ON_ERROR:

help:
	@echo "make setup   the environment, in $(VENV), with the versions of constraints/locked.txt;"
	@echo "             NEWEST=1 (here and for the rest): the newest allowed; OLDEST=1: the oldest"
	@echo "make lock    renew those versions and say what changed"
	@echo "make demo    export a bundled model, prove it, classify the sample clips"
	@echo "make test    all tests"
	@echo "make test-versions  all tests with the newest versions, then with the oldest"
	@echo "make lint    ruff and mypy"
	@echo "make coverage  all tests, and which lines they reach, in build/coverage"
	@echo "make check-wheel  build wheel and sdist, and run them in an empty environment"
	@echo "make sizes   make and run the smallest installations, and print their sizes"
	@echo "make check-containers  build and run the container images (root, buildah, mmdebstrap)"
	@echo "make bench   speed and memory against the plain recipe and PyTorch (an hour, 6 GB)"
	@echo "make bench-peers  the same, and against all others, in an environment of their own"
	@echo "make bench-video  decoding, timeline, batch, stream and isolated reading"
	@echo "make bench-guards  hostile videos: memory and time with the guards, and without"
	@echo "make accuracy     what int8, fp16 and q4 cost over 2,700 held-out clips"
	@echo "make check-javascript  the JavaScript examples, in Node and in headless Chromium"
	@echo "make check-without-vnni  int8 on an emulated CPU without VNNI (needs qemu-user)"
	@echo "make check-openvino  portable models on OpenVINO's execution provider"
	@echo "make check-cpp  compile examples/cpp, and compare its answers with Python's"
	@echo "make check-gunicorn  serve the sample clips with workers that fork after loading"
	@echo "make check-serve  the service, asked by tritonclient and by headless Chromium"
	@echo "make bench-serve  throughput, latency and memory of the service"
	@echo "make check-ray  batch --ray on local clusters whose processes and machines are killed"
	@echo "make bench-ray  its speed against batch, and with a second machine"
	@echo "make check-spark  examples/spark on a local Spark (needs Java)"
	@echo "make soak    10,000 classifications: memory, threads and open files must not grow"
	@echo "make check-arm64  the runtime on emulated 64-bit ARM processors; ARM64_ARGS=--short: minutes"
	@echo "make count-arm64  instructions that each variant takes on them (builds qemu, ten minutes)"
	@echo "make check-small-board  memory of the base model in int8 on a 1080p video"
	@echo "make fuzz    damaged videos for ten minutes"
	@echo "make fuzz-models  damaged models and checkpoints, and a lying Hub, for ten minutes"
	@echo "make docs    the documentation as HTML, in build/docs"
	@echo "make train   train the bundled models again (hours)"

setup: $(VENV)/.installed

define check_python
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "Python 3.11 or newer is needed; '$(PYTHON)' is not that. Install it, or name another: make setup PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "Python's venv module is missing. On Debian: apt install python3-venv" >&2; exit 2; }
endef

# What an environment is made from. It is made anew with the newest versions, and with another
# Python than last time.
MADE_FROM := pyproject.toml $(CONSTRAINTS)
$(if $(NEWEST),$(eval .PHONY: $(VENV)/.installed $(RUNTIME_VENV)/.installed))
ifneq ($(origin PYTHON),file)
ifneq ($(shell $(BIN)/python --version 2>&1),$(shell $(PYTHON) --version 2>&1))
.PHONY: $(VENV)/.installed $(RUNTIME_VENV)/.installed
endif
endif

# $(call install,ENVIRONMENT,EXTRA). setuptools first, so that its version is the one wanted, too.
define install
	$(check_python)
	$(PYTHON) -m venv --clear $(1)
	$(1)/bin/pip install --quiet $(CONSTRAINTS:%=-c %) "setuptools>=77"
	$(1)/bin/pip install --quiet $(CONSTRAINTS:%=-c %) --no-build-isolation \
	  $(TORCH_INDEX:%=--extra-index-url %) -e ".[$(2)]"
	@touch $(1)/.installed
endef

$(VENV)/.installed: $(MADE_FROM)
	$(call install,$(VENV),dev)

# What a small device would install: the runtime, without torch, onnx or transformers.
$(RUNTIME_VENV)/.installed: $(MADE_FROM)
	$(call install,$(RUNTIME_VENV),cpu)

lock:
	$(check_python)
	test -d $(LOCK_VENV) || $(PYTHON) -m venv $(LOCK_VENV)
	$(LOCK_VENV)/bin/pip install --quiet --upgrade uv
	$(LOCK_VENV)/bin/python constraints/lock.py

demo: setup
	mkdir -p demo
	$(BIN)/timesformer-export --model models/shot-transitions-divided --output $(DEMO) \
	  --dtype fp32 --dtype int8 --force
	$(BIN)/timesformer classify $(DEMO) $(SAMPLES)/*.mp4 --top-k 1
	$(BIN)/python -m models.shot_transitions.check_samples $(DEMO)

test: setup $(RUNTIME_VENV)/.installed
	TIMESFORMER_RUNTIME_PYTHON=$(RUNTIME_VENV)/bin/python $(BIN)/pytest -n $(JOBS) $(PYTEST_ARGS)

test-versions:
	$(MAKE) test NEWEST=1
	$(MAKE) test OLDEST=1

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.PHONY: docs coverage check-wheel sizes check-containers

# The pages of docs/ as HTML. A broken link, anchor or reference fails.
docs: $(VENV)/.docs-installed
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs build/docs
	@echo "build/docs/index.html"

# The tests, and which lines and branches they reach, also in the processes that they start.
coverage: $(VENV)/.coverage-installed $(RUNTIME_VENV)/.installed
	TIMESFORMER_RUNTIME_PYTHON=$(RUNTIME_VENV)/bin/python $(BIN)/pytest -n $(JOBS) \
	  --cov --cov-report=term --cov-report=html $(PYTEST_ARGS)
	@echo "build/coverage/index.html"

# Tools that only some targets need are installed with the first of these.
$(VENV)/.%-installed: $(VENV)/.installed
	$(BIN)/pip install --quiet $(CONSTRAINTS:%=-c %) -e ".[$*]"
	@touch $@

# The wheel and the sdist, in an empty environment outside this folder.
check-wheel: demo
	$(BIN)/python -m tests.end_to_end.check_wheel $(DEMO)

# The smallest installations with PyAV and without it: made from the wheel, run, and their sizes.
sizes: demo
	$(BIN)/python -m tests.end_to_end.check_sizes $(DEMO) $(CONSTRAINTS:%=--constraint %)

check-containers: demo
	$(BIN)/python -m tests.end_to_end.check_containers $(DEMO)

# Arguments of the benchmarks, such as BENCH_ARGS=--help.
BENCH_ARGS ?=

bench: setup
	$(BIN)/python -m tests.benchmarks.run $(BENCH_ARGS)

bench-peers: setup
	$(BIN)/python -m tests.benchmarks.peers $(BENCH_ARGS)

bench-guards: setup
	$(BIN)/python -m tests.benchmarks.guards $(BENCH_ARGS)

# VIDEOS=DIR also compares decoding on the real videos in that folder.
VIDEOS ?= $(SAMPLES)

bench-video: demo
	$(BIN)/python -m tests.benchmarks.decode $(VIDEOS)
	$(BIN)/python -m tests.benchmarks.timeline $(DEMO)
	$(BIN)/python -m tests.benchmarks.batch $(DEMO)
	$(BIN)/python -m tests.benchmarks.live $(DEMO)
	$(BIN)/python -m tests.benchmarks.cameras $(DEMO)
	$(BIN)/python -m tests.benchmarks.isolated $(DEMO)

# Rendering carries on where it was broken off.
accuracy: setup
	$(SHOTS).render --output build/held-out --seed 1 --count 2700 --size 64 --balanced
	for kind in divided joint space; do \
	  $(SHOTS).accuracy --model models/shot-transitions-$$kind --renders build/held-out --write-card \
	    || exit 1; done

# Needs Node, npm and Chromium; says which of them is missing.
.PHONY: check-javascript
check-javascript: setup
	$(BIN)/python -m tests.end_to_end.check_javascript

check-without-vnni: setup
	$(BIN)/python -m tests.end_to_end.check_without_vnni

# ONNX Runtime with OpenVINO takes the place of the plain one, so it needs its own environment. This
# version refuses the Attention operator, which the tests rely on.
OPENVINO_VENV := .venv-openvino
OPENVINO := onnxruntime-openvino==1.24.1

$(OPENVINO_VENV)/.installed: pyproject.toml Makefile
	$(check_python)
	$(PYTHON) -m venv --clear $(OPENVINO_VENV)
	$(OPENVINO_VENV)/bin/pip install --quiet "setuptools>=77"
	$(OPENVINO_VENV)/bin/pip install --quiet --no-build-isolation $(OPENVINO) -e .
	@touch $@

check-openvino: setup $(OPENVINO_VENV)/.installed
	TIMESFORMER_OPENVINO_PYTHON=$(OPENVINO_VENV)/bin/python \
	  $(BIN)/pytest tests/end_to_end/test_openvino.py $(PYTEST_ARGS)

# Compiles examples/cpp against the headers that ONNXRUNTIME_INCLUDE names, else Debian's.
check-cpp: setup
	$(BIN)/python -m tests.end_to_end.check_cpp

check-gunicorn: demo
	$(BIN)/python -m tests.end_to_end.check_gunicorn $(DEMO)

# tritonclient wants other versions of packages than the exporter.
TRITON_VENV := .venv-triton

$(TRITON_VENV)/.installed: Makefile
	$(check_python)
	$(PYTHON) -m venv --clear $(TRITON_VENV)
	$(TRITON_VENV)/bin/pip install --quiet "tritonclient[http]==2.73.0"
	@touch $@

# The page needs Node, npm and Chromium; the check says which of them is missing.
check-serve: demo $(TRITON_VENV)/.installed
	TIMESFORMER_TRITON_PYTHON=$(TRITON_VENV)/bin/python \
	  $(BIN)/pytest tests/end_to_end/test_tritonclient.py $(PYTEST_ARGS)
	$(BIN)/python -m tests.end_to_end.check_serve_page $(DEMO)

bench-serve: demo
	$(BIN)/python -m tests.benchmarks.serve $(DEMO) $(BENCH_ARGS)

# Ray in an environment of its own, with what its tests need besides.
RAY_VENV := .venv-ray$(SUFFIX)

$(RAY_VENV)/.installed: $(MADE_FROM)
	$(call install,$(RAY_VENV),ray)
	$(RAY_VENV)/bin/pip install --quiet $(CONSTRAINTS:%=-c %) onnxruntime onnx pillow pytest pytest-timeout

check-ray: $(RAY_VENV)/.installed
	$(RAY_VENV)/bin/python -m pytest tests/runtime/ray tests/end_to_end/test_ray.py $(PYTEST_ARGS)

bench-ray: demo $(RAY_VENV)/.installed
	$(RAY_VENV)/bin/python -m tests.benchmarks.ray_batch $(DEMO) $(BENCH_ARGS)

# The example for Spark, whose package is too large for the environment of all other tests.
SPARK_VENV := .venv-spark$(SUFFIX)

$(SPARK_VENV)/.installed: $(MADE_FROM)
	$(call install,$(SPARK_VENV),cpu)
	$(SPARK_VENV)/bin/pip install --quiet $(CONSTRAINTS:%=-c %) \
	  "pyspark[sql]==4.3.0" pytest pytest-timeout onnx

check-spark: $(SPARK_VENV)/.installed
	$(SPARK_VENV)/bin/python -m pytest tests/end_to_end/test_spark.py $(PYTEST_ARGS)

# Arguments such as SOAK_ARGS="--number 2000".
SOAK_ARGS ?=

soak: demo
	$(BIN)/python -m tests.benchmarks.soak $(DEMO) $(SOAK_ARGS)

# SOAK=72h runs longer.
SOAK ?= 1h

.PHONY: soak-cameras
soak-cameras: demo
	$(BIN)/python -m tests.benchmarks.cameras $(DEMO) --soak $(SOAK)

# ARM64_ARGS="--short" runs a part; "--cpu cortex-a76" chooses the processor.
ARM64_ARGS ?=

check-arm64: setup
	$(BIN)/python -m tests.arm64.check $(ARM64_ARGS)

count-arm64: demo
	$(BIN)/python -m tests.arm64.instructions $(DEMO) $(ARM64_ARGS)

check-small-board: setup
	$(BIN)/python -m tests.benchmarks.small_board

MINUTES ?= 10

fuzz: setup
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

fuzz-models: setup
	$(BIN)/python -m tests.fuzz --what models --minutes $(MINUTES)

# Renders the clips, then trains and evaluates the three models: about two hours on two cores.
# FOOTAGE=DIR also evaluates on the real videos in that folder.
FOOTAGE ?=
SHOTS := PYTHONPATH=. $(BIN)/python -m models.shot_transitions

train: setup
	$(SHOTS).render --output build/pool
	$(SHOTS).render --output build/held-out --seed 1 --count 2700 --size 64 --balanced
	$(if $(FOOTAGE),$(SHOTS).render --output build/footage --seed 1 --count 900 --size 64 --balanced --videos $(FOOTAGE))
	$(MAKE) -j2 train-divided train-joint train-space

train-divided: TYPE = divided_space_time
train-joint: TYPE = joint_space_time
train-space: TYPE = space_only
train-divided train-joint train-space: train-%:
	$(SHOTS).train --attention-type $(TYPE) --pool build/pool --state build/$*.pt \
	  --output models/shot-transitions-$*
	$(SHOTS).evaluate --model models/shot-transitions-$* --renders build/held-out \
	  $(if $(FOOTAGE),--footage build/footage) --write-card

clean:
	rm -rf .venv .venv-* demo
