# The face of the project, the same on a laptop and in CI. `make help` lists the targets.
VENV := .venv
PYTHON := $(VENV)/bin/python
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
# The Python to make the environment of, as in `make demo PYTHON3=python3.12`.
PYTHON3 := python3
# Where pip finds torch, if not where it finds all else: PyTorch's page says which index has builds for CPUs.
TORCH_INDEX :=
# pip shows what it downloads at a terminal.
QUIET := $(shell test -t 2 || echo --quiet)
PIP := $(PYTHON) -m pip install $(QUIET) --disable-pip-version-check -c constraints.txt
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
DEMO_RANKS := 2
# Two processes at once, a file's tests in one of them: many tests wait for others.
WORKERS := -n 2 --dist loadgroup
# torch and its libraries then use no more of this CPU than a machine with AVX2 only has.
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2

RUN_DIR := runs/demo

.PHONY: help demo about-demo report test test-slow test-avx2 test-long check bench bench-avx2 gpu-check first-day-on-gpu clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# The demo needs less than the tests do.
$(RUN): pyproject.toml constraints.txt
	@$(PYTHON3) -c '$(NEW_ENOUGH)' || { echo "error: $$($(PYTHON3) --version 2>&1) is older than 3.11, which is \
	needed; name a newer one: make $(or $(MAKECMDGOALS),demo) PYTHON3=python3.12"; exit 1; }
	@$(PYTHON) -c 'import pip; $(NEW_ENOUGH)' 2>/dev/null || $(PYTHON3) -m venv --clear $(VENV)
	@$(PYTHON) -c 'import torch' 2>/dev/null || test -n "$(TORCH_INDEX)" || command -v nvidia-smi >/dev/null || \
	    echo "Without an NVIDIA driver here: on Linux pip's torch may bring CUDA, some gigabytes that nothing uses." \
	    "make TORCH_INDEX=URL takes a build for CPUs, about 200 MB, from the index that PyTorch's page names."
	test -z "$(TORCH_INDEX)" || $(PIP) --index-url $(TORCH_INDEX) torch
	$(PIP) -e .
	touch $@

$(DEV): $(RUN)
	$(PIP) -e '.[dev]'
	touch $@

demo: about-demo $(RUN)  ## set up, draw rooms, write shards, train on 2 ranks, show where to look (about 5 minutes, 2 cores)
	$(PYTHON) -m shards build rooms data/rooms --images 12000 --size 32
	OMP_NUM_THREADS=1 $(VENV)/bin/torchrun --nproc-per-node $(DEMO_RANKS) -m dcgan_dist.train configs/demo.yaml
	$(PYTHON) -m dcgan_dist.evaluate runs/demo --images 512
	@echo
	@echo "Pictures:     runs/demo/samples/, beside runs/demo/real.png"
	@echo "Curves:       $(VENV)/bin/tensorboard --logdir runs/demo   (then the Custom Scalars tab)"
	@echo "More samples: $(VENV)/bin/dcgan sample runs/demo --out more.png"

about-demo:
	@echo "Installs Python packages into $(VENV), draws 12,000 rooms, trains 1,500 steps on $(DEMO_RANKS) ranks, scores the samples."
	@echo "On two server cores that took 3 min 51 s with AVX-512 and 4 min 36 s with AVX2 only, a minute of it for the packages."

report: $(RUN)  ## explore the demo's networks and put the paper and them on one page (some minutes)
	test -d $(RUN_DIR)/checkpoints || $(MAKE) demo
	$(PYTHON) -m shards build rooms data/rooms-held-out --images 2000 --size 32 --seed 1
	for what in judge walk filters forget arithmetic turn underfit "neighbours --held-out data/rooms-held-out"; do \
		$(PYTHON) -m dcgan_dist.explore $$what $(RUN_DIR) || exit 1; done
	$(PYTHON) -m dcgan_dist.report $(RUN_DIR)

test: $(DEV)  ## set up and run the tests (about 10 minutes on 2 cores with AVX2 only)
	$(PYTHON) -m pytest $(WORKERS) -m "not slow and not long and not gpu"

test-slow: $(DEV)  ## the tests that take minutes or need a browser
	$(PYTHON) -m pytest $(WORKERS) -m "slow and not gpu"

test-avx2: $(DEV)  ## the promises, the recipe and the demo once more, as on a CPU with AVX2 only
	$(AVX2) $(PYTHON) -m pytest $(WORKERS) -m "not long and not gpu" tests/test_promises.py tests/training/test_recipe.py \
		tests/gan/test_convolution.py tests/training/test_precision.py tests/test_demo.py

test-long: $(DEV)  ## proofs that take many minutes each: 50 kills while writing, 100,000 hostile inputs
	$(PYTHON) -m pytest -m "long and not gpu"

check: $(DEV)  ## format, lint, types, import contracts, spelling
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/codespell $$(git ls-files)

bench: $(DEV)  ## measure on this CPU and append to benchmarks/*.jsonl
	$(PYTHON) -m benchmarks.step
	$(PYTHON) -m benchmarks.convolution
	$(PYTHON) -m benchmarks.feed
	$(PYTHON) -m benchmarks.reader
	$(PYTHON) -m benchmarks.ingest share
	$(PYTHON) -m benchmarks.dedup buckets --millions 1 3
	$(PYTHON) -m benchmarks.reads
	$(PYTHON) -m benchmarks.scaling
	$(PYTHON) -m benchmarks.end_to_end
	$(PYTHON) -m benchmarks.start
	$(PYTHON) -m benchmarks.demo
	$(PYTHON) -m benchmarks.checkpoint
	$(PYTHON) -m benchmarks.memory
	$(PYTHON) -m benchmarks.tables

bench-avx2: $(DEV)  ## the benchmarks that depend on the instruction set, as on a CPU with AVX2 only
	$(AVX2) $(PYTHON) -m benchmarks.step
	$(AVX2) $(PYTHON) -m benchmarks.convolution
	$(AVX2) $(PYTHON) -m benchmarks.demo
	$(PYTHON) -m benchmarks.tables

gpu-check: $(DEV)  ## the tests that need a CUDA device
	$(PYTHON) -m pytest -m gpu

first-day-on-gpu: $(DEV)  ## on a machine with a card: check it, measure it, train an epoch; at most 25 minutes
	$(PYTHON) -m benchmarks.first_day

clean:  ## remove the environment, drawn data, runs and caches
	rm -rf $(VENV) data runs build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
