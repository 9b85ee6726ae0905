# make demo: set up, train, score, show the board.  make test: set up, run every test.
# make docs: renew the generated tables, build the documentation into build/site.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SHELL := /bin/bash

.PHONY: demo test lint bench docs setup clean
.DELETE_ON_ERROR:

setup: $(READY)

# A second call is quick: the environment is rebuilt only when what it is made from changes.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; try: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	@start=$$SECONDS; \
	$(BIN)/fact-train --preset mnist-stylegan2 && \
	echo "trained in $$((SECONDS - start)) s" >&2 && start=$$SECONDS && \
	$(BIN)/fact-eval all runs/ && \
	echo "scored in $$((SECONDS - start)) s; pictures: runs/mnist-stylegan2-seed0/fakes*.png" >&2

COVERED := --cov=fact_train --cov=fact_eval --cov=fact_metrics --cov=fact_leaderboard --cov=fact_baselines

# Tolerances follow from the arithmetic, not from one processor: tests of numbers run again without AVX-512, on one
# thread.
NUMERIC := ops networks injection augment augment_geometry precision per_sample_conv resize losses perceptual_loss \
	baked detectors digits parity training_threads metrics_frechet metrics_kid metrics_neighbours metrics_vendi metrics_ssim \
	edited_images rectangular
LOWERED := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1

# Tests of training in groups fork, which is safe only before other tests have started torch's threads.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(COVERED) --cov-report= tests/test_distributed.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(COVERED) --cov-append --cov-report=term \
		--ignore=tests/test_distributed.py
	$(LOWERED) $(BIN)/python -m pytest -n 2 --dist worksteal $(NUMERIC:%=tests/test_%.py)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: setup
	$(BIN)/python -m benchmarks

docs: setup
	$(BIN)/python docs/generate.py
	$(BIN)/python -m mkdocs build --strict --quiet
	@echo "open build/site/index.html" >&2

clean:
	rm -rf $(VENV) build *.egg-info
