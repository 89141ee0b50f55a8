# Thin: what it runs is `python -m jobs.NAME`, `python -m tests.benchmarks.NAME` and pytest.
PYTHON ?= python3
BIN := .venv/bin
ARCHIVE ?=
OUT ?= demo
# Where there is no GPU, PyTorch's build without CUDA is looked for here: 4 GB less than the default one.
TORCH_CPU ?= https://download.pytorch.org/whl/cpu
# Tests without Ray run on all cores; a file's stay together, as they share what they build.
PARALLEL := --numprocesses auto --maxprocesses 8 --dist loadfile

.PHONY: setup demo test test-fast lint docs bench clean

setup: .venv/installed

# Built once, and again when pyproject.toml changes.
.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %d.%d: make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@echo "Installing into .venv (a few minutes, several GB)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@command -v nvidia-smi >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--retries 0 --extra-index-url $(TORCH_CPU) torch torchvision || echo "The next step installs PyTorch's default build"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[s3,train,dev,docs]'
	@touch $@

demo: setup
	$(BIN)/python -m jobs.demo --out $(OUT) $(if $(ARCHIVE),--archive $(ARCHIVE))

# One Ray at a time: beside a second one, Ray Train (2.60) at times takes its controller for dead and ends its workers.
test: setup
	$(BIN)/python -m pytest $(PARALLEL) -m 'not ray'
	$(BIN)/python -m pytest -m ray

test-fast: setup
	$(BIN)/python -m pytest $(PARALLEL) -m 'not ray and not slow' --hypothesis-profile fast

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	$(BIN)/python -m mkdocs build --strict --site-dir site

bench: setup
	for name in $(notdir $(basename $(wildcard tests/benchmarks/[a-z]*.py))); do $(BIN)/python -m tests.benchmarks.$$name --json || exit 1; done

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
