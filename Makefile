# Everything a newcomer needs: `make demo`, then `make test`. `make setup` runs by itself when it has something to do.
PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
# Compiled once here: where PYTHONDONTWRITEBYTECODE is set, as in many images, every process would compile 5 s of modules again.
UV_INSTALL = $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt \
	$(if $(TORCH_INDEX),--index $(TORCH_INDEX) --index-strategy unsafe-best-match)

.PHONY: setup demo test fuzz chaos soak integration triton servers lint bench lock clean

setup: $(VENV)/.installed

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "reid-tune needs Python 3.11 or 3.12, but '$(PYTHON)' is `$(PYTHON) --version 2>&1`: run 'make PYTHON=python3.12 ...'." >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "'$(PYTHON)' lacks the venv module: install it (Debian, Ubuntu: apt-get install python3-venv) and run make again." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "`grep '^uv==' constraints.txt || echo uv`"

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/uv
	@echo "Installing reid-tune into $(VENV) ..."
	@$(UV_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(UV_INSTALL) --editable '.[dev,triton]'
	@touch $@

demo: $(VENV)/.installed
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell $$(git ls-files 2>/dev/null || echo .)

# Each test process computes with one thread (tests/conftest.py); two of them suit the smallest machine. Each begins
# with one half of the tests and takes over from the other at the end, so that few fixtures are built twice.
test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations=15

# About 100,000 inputs, other ones in each run; those of `make test` are few and always the same.
fuzz: $(VENV)/.installed-dev
	REID_TUNE_FUZZ=$${REID_TUNE_FUZZ:-100000} $(BIN)/python -m pytest -n 2 --timeout=3600 --durations=10 tests/fuzz

# Kills at every point that has a name; `make integration` has one of each kind.
chaos: $(VENV)/.installed-dev
	REID_TUNE_CHAOS=all $(BIN)/python -m pytest -m integration -n 2 --durations=10 tests/chaos

# A long sweep, of at most 30 minutes, whose use of memory, descriptors, threads and disk stays flat.
soak: $(VENV)/.installed-dev
	$(BIN)/python tests/soak/soak.py

integration: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "integration or hypothesis" -n 2 --dist loadfile --no-loadscope-reorder

# The genuine server for tests, in an environment of its own: with numpy 2 its answers are empty.
triton: .triton/.installed

.triton/.installed: tests/deploy/triton/requirements.txt | $(BIN)/uv
	@echo "Installing the Triton server of the tests into .triton ..."
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .triton
	@$(BIN)/uv pip install --quiet --no-deps --compile-bytecode --python .triton/bin/python --requirements $<
	@touch $@

# The second S3 server of the tests. Where npm is missing, they are skipped.
servers:
	@test -e .servers/node_modules/s3rver/package.json || \
	  npm install --silent --no-audit --no-fund --no-save --ignore-scripts --prefix .servers s3rver@3.7.1 || \
	  echo "s3rver cannot be installed (needs npm): its tests are skipped" >&2

bench: $(VENV)/.installed-dev triton
	@for script in `grep -l __main__ benchmarks/*.py`; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# torch and torchvision are a binary pair whose metadata does not say which belong together.
lock: | $(BIN)/uv
	@printf 'torch==2.14.1\ntorchvision==0.29.1\n' > $(VENV)/pair.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --constraint $(VENV)/pair.txt pyproject.toml --output-file constraints.txt

clean:
	rm -rf $(VENV) .triton .servers build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
