# make demo    train built-in recipes without and with mix-and-match and compare; a minute or two on a CPU
# make test    everything that CI checks
# make quick   units and numerics that start no process and are not slow; two to three minutes on two cores
# make test-loaded   what starts processes, beside four busy loops and without second tries
# make lint    the same without the tests (make check is another name of it)
# make house   figures on the layout: circles of imports, lengths, uses of Any
# make chaos   N faults at random against the whole program (N=100)
# make fuzz     N times as many hostile inputs as in make test: events, rows, recipes, capsules, weights, keys (N=10)
# make docs    write docs/cli.md again from --help, the answers of docs/cookbook.md, docs/screens and tests/tui/snapshots, the counts of docs/discipline.md
# make bench   the measurements that performance claims rest on
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
BENCHES := benchmarks/engine.py $(filter-out %/bench_graph.py %/bench_engine.py,$(wildcard benchmarks/bench_*.py))

# Tests start a thousand Pythons: each would compile the program anew where the environment forbids to keep that.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test quick test-loaded check lint house chaos fuzz docs bench clean

help:
	@sed -n 's/^# make/make/p' Makefile

demo: $(VENV)/.base
	@$(BIN)/mmtui demo

# torch first and pinned: its wheel is the large one, and what follows must not pull another.
$(VENV)/.base: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $@

lint check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m mmtui.cli.docs --check docs/cli.md

# Tests that start supervisors and trainers share a few workers (xdist_group, tests/conftest.py): all side by side they
# would slow each other down. They mostly wait, so there are two workers more than the cores of a small machine.
# A worker that dies ends the run: pytest-xdist would wait for ever for what it had still to do.
test: lint
	$(BIN)/python -m pytest -n 4 --dist loadgroup --max-worker-restart=0 -rs $(PYTEST)

house: $(VENV)/.dev
	@$(BIN)/python -m tests.contract.house

# What is marked in tests/conftest.py, or in the test, as starting processes is left out.
quick: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not (processes or tui or slow)' tests/unit tests/numerics $(PYTEST)

# Each loop ends with the shell that has started it, however that ends.
test-loaded: $(VENV)/.dev
	@for _ in 1 2 3 4; do $(BIN)/python -c "while __import__('os').getppid() == $$$$: pass" & done; \
	MMTUI_SECOND_TRIES=0 MMTUI_TEST_PATIENCE=3 $(BIN)/python -m pytest -n 3 --dist loadgroup --max-worker-restart=0 -rs \
		-m 'e2e or slurm or (tui and terminal)' $(PYTEST)

# A campaign of faults as long as one likes: make chaos N=500
chaos: $(VENV)/.dev
	MMTUI_CHAOS=$(or $(N),100) $(BIN)/python -m pytest -p no:xdist -s tests/e2e/test_chaos.py

fuzz: $(VENV)/.dev
	MMTUI_FUZZ=$(or $(N),10) $(BIN)/python -m pytest -n 2 --dist load tests/fuzz tests/tui/test_hostile_events.py tests/unit/cli/test_hostile.py tests/unit/cli/test_hostile_completion.py \
	  --timeout=$$((300 * $(or $(N),10))) $(PYTEST)

docs: $(VENV)/.dev
	$(BIN)/python -m mmtui.cli.docs docs/cli.md
	$(BIN)/python docs/make_cookbook.py
	$(BIN)/python docs/make_screens.py
	$(BIN)/python docs/make_discipline.py

bench: $(VENV)/.dev
	@for file in $(BENCHES); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist build
