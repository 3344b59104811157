# Each target sets up its own .venv first; all that is needed beforehand is Python 3.11 or newer and make.
PYTHON ?= python3
TEST_PROCESSES ?= 2
VENV := .venv
BIN := $(VENV)/bin
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Nothing is written outside the clone: the caches of the libraries stay in it too.
export HF_HOME := $(CURDIR)/$(VENV)/cache/huggingface
export MPLCONFIGDIR := $(CURDIR)/$(VENV)/cache/matplotlib
export NUMBA_CACHE_DIR := $(CURDIR)/$(VENV)/cache/numba
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
# Where it is set, every process compiles all of torch and diffusers again: 25 s instead of 7.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo studio site test test-slow tests check style types format clean

demo: $(VENV)/.installed
	$(BIN)/sdxl-mel demo $(DEMO_FLAGS)

# The demo's folder is the project: what `make demo` has made is there, or will be.
studio: $(VENV)/.installed-studio
	mkdir -p demo
	$(BIN)/sdxl-mel studio --root demo --open $(STUDIO_FLAGS)

# The page of the shipped base: any static host serves it, `python3 -m http.server --directory site` on this machine.
site: $(VENV)/.installed-export
	$(BIN)/sdxl-mel export --base mini --example "violin and piano, slow, folk tune" --out site $(SITE_FLAGS)

# Two tests run side by side, each on one thread: threads of one do not wait for those of the other.
PYTEST := $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist worksteal
tests test-slow: export OMP_NUM_THREADS := 1
tests test-slow: export NUMBA_NUM_THREADS := 1
# Types are checked while tests wait for a browser or for each other.
test: style
	$(MAKE) --jobs 2 types tests

tests: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow" $(PYTEST_FLAGS)

# Whole servers, browsers and trainings that are killed and go on, seams over many joins: minutes more.
test-slow: $(VENV)/.installed-dev
	$(PYTEST) -m slow $(PYTEST_FLAGS)

check: style types

style: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@

# Modules are compiled when they are first imported: compiling all of them takes longer than downloading them.
PIP_INSTALL := $(BIN)/pip install --quiet --no-compile

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP_INSTALL) torch
	$(PIP_INSTALL) --editable '.[demo,tag-score]'
	touch $@

$(VENV)/.installed-studio: $(VENV)/.installed
	$(PIP_INSTALL) --editable '.[demo,tag-score,studio]'
	touch $@

$(VENV)/.installed-export: $(VENV)/.installed
	$(PIP_INSTALL) --editable '.[demo,tag-score,export]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP_INSTALL) --editable '.[demo,tag-score,optimizers,studio,export,dev]'
	touch $@
