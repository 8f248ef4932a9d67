# Every command of this project; `make` prints them. BROKERS, KAFKA, PAYMENTS reach them by the environment.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
IMAGE ?= streamsocial-billing

# tests start a thousand Python processes: none of them compiles our modules anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install run up unit test test-all compiled lint types kafka image clean defects bench torture lab schemas docs
.DEFAULT_GOAL := help

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## set up .venv with pinned versions (the others do it by themselves)

# the stamp comes last: an interrupted set-up is repeated
$(STAMP): setup.cfg pyproject.toml constraints.txt packages/faust-exactly-once/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.x")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e packages/faust-exactly-once -e '.[test,bench,analytics,docs]'
	@touch $@

run: install ## the main job once: local Kafka, gateway, two workers, SIGKILL, the audit (PAYMENTS=n; KAFKA=host:port or BROKERS=3)
	$(BIN)/python -m showcase run

up: install ## the same system, left running until Ctrl-C; what dies is started again (KAFKA=host:port or BROKERS=3)
	$(BIN)/python -m showcase up

unit: install ## the tests that need neither Java nor a broker, in a minute
	$(BIN)/python -m pytest $(CI_RUN) -n $(UNIT_LANES) --durations 25 tests/unit packages/faust-exactly-once/tests

test: install ## set up, lint, then the tests of a CI run, against a real Kafka (docs/testing.md)
	$(MAKE) --no-print-directory -j 2 lint compiled
	$(BIN)/python -m pytest $(CI_RUN) $(SIDE_BY_SIDE)

test-all: install ## every test, for hours: those of a CI run, more seeds, larger ones, plain Faust
	$(MAKE) --no-print-directory -j 2 lint compiled
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

# pytest compiles each test once, beside lint; else each lane does it for itself, all at the same time
compiled: install
	@$(BIN)/python -m pytest --collect-only -q > .venv/collected || { cat .venv/collected; exit 1; }

CI_RUN := -m 'not slow and not plain_faust'
# most tests wait for Kafka, time-outs, absences: with four lanes a third of two cores is idle, with six a sixth
LANES ?= 6
# these wait for nothing, and each lane has to collect them all
UNIT_LANES ?= 3
SIDE_BY_SIDE = -n $(LANES) --durations 25

lint: install ## ruff, mypy, import-linter; changes no file
	$(BIN)/ruff check --no-cache .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

types: install ## mypy alone
	$(BIN)/mypy

kafka: install ## the local broker alone, until Ctrl-C (BROKERS=3: three of them)
	$(BIN)/python -m broker run

image: ## build the container image
	docker build --tag $(IMAGE) .

clean: ## remove data, the broker's jars, build results, caches (.venv stays)
	rm -rf data .kafka .peers .servers build dist *.egg-info packages/*/build packages/*/src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

defects: install ## show each known defect: our layer passes, plain Faust fails as expected (5 minutes)
	$(BIN)/python -m pytest tests/defects

bench: install ## ours beside Kafka Streams, Flink, Quix, in 15 minutes (ROUNDS=n; FULL=1: more, for hours)
	$(BIN)/python -m benchmarks $(if $(FULL),--full) $(if $(ROUNDS),--rounds $(ROUNDS))

torture: install ## half an hour of faults on a real Kafka, then the verdict (SIZE=ci: 3 minutes; SEED=n; BROKERS=3)
	$(BIN)/python -m torture --size $(or $(SIZE),long) $(if $(SEED),--seed $(SEED))

lab: install ## the delivery guarantees compared under the same faults, with a page (SEED=n, PAYMENTS=n)
	$(BIN)/python -m lab $(if $(SEED),--seed $(SEED)) $(if $(PAYMENTS),--payments $(PAYMENTS))

schemas: install ## write docs/schemas anew from the records and rows of the code
	$(BIN)/python docs/schemas.py

docs: install ## the documents as a site in build/site, links checked, nothing loaded from elsewhere
	$(BIN)/python -m mkdocs build --strict --quiet
	@echo "open build/site/index.html"
