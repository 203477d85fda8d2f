# Needs python3 (>= 3.11) with venv, git and make. Everything else comes from requirements.lock.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
JOBS   ?= 2

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test test-long old venv lint format lock bench docs compiled pure clean

run: $(READY)
	@$(BIN)/vkemu run demo --seeds 200; status=$$?; \
	if [ $$status -eq 1 ]; then exit 0; fi; \
	echo "make run: expected the demonstration to find a race (status 1), got $$status" >&2; exit 1

test: $(READY)
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy --no-error-summary
	$(BIN)/pytest -q -n $(JOBS) -m "not long"

test-long: $(READY) old
	$(BIN)/pytest -q -n $(JOBS) -m long --timeout 3000

# Old releases with known races, each in a folder of its own, for tests/worlds.
old: $(READY)
	@grep == tests/worlds/packages.lock | while read -r line; do \
	    to=$(VENV)/old/$$(echo "$$line" | sed 's/ .*//; s/==/-/'); \
	    [ -d $$to ] && continue; \
	    echo "$$line" > $(VENV)/.one; \
	    $(BIN)/pip install -qq --no-deps --require-hashes --target $$to --requirement $(VENV)/.one || exit 1; \
	done

venv: $(READY)

# The old environment goes first: one that half matches the lock is worse than none.
$(READY): requirements.lock pyproject.toml
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq --require-hashes --no-deps --requirement requirements.lock
	$(BIN)/pip install -qq --no-build-isolation --no-deps --editable .
	touch $@

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Needs uv, which only the person who renews the lock has to have.
lock:
	uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
	    --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	    --quiet --upgrade --output-file requirements.lock

bench: $(READY)
	@for bench in tests/benchmarks/*_bench.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

# The documentation as a site, to be opened at docs/_build/docs/index.html; a warning is an error.
docs: $(READY)
	$(BIN)/sphinx-build -q -W --keep-going -b html -c docs . docs/_build
	$(BIN)/sphinx-build -q -W --keep-going -b doctest -c docs . docs/_build/doctest

# The inner loops of the reductions in C, by mypyc: dpor then takes about half the time. Pure Python
# is the default, and the reference: `make pure` goes back to it. Needs a C compiler.
COMPILED := record reduction/commuting reduction/footprint reduction/trace reduction/wakeup
compiled: $(READY)
	$(BIN)/python -c "import setuptools" 2>/dev/null || $(BIN)/pip install -qq setuptools
	cd tools && MYPYPATH=../protocol:.:.. $(abspath $(BIN))/mypyc --config-file ../pyproject.toml \
	    --follow-imports silent $(COMPILED:%=vkemu/exploration/%.py) > /dev/null

pure:
	rm -rf tools/build tools/*.so tools/vkemu/exploration/*.so tools/vkemu/exploration/reduction/*.so

clean: pure
	rm -rf $(VENV) dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis
