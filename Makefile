.PHONY: install browser demo devnet test chaos bench fleet lint types audit docs retention clean
.DEFAULT_GOAL := help

PYTHON ?= python3
KILLS ?= 100
SEED ?= 1
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

help: ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# The lock is complete, so pip resolves nothing; it checks every package against its hash
$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m compileall -q $(VENV)/lib -j 2 || true
	$(BIN)/python -c 'import pathlib, site; pathlib.Path(site.getsitepackages()[0], "op_succinct_proposer.pth").write_text(str(pathlib.Path.cwd()) + "\n")'
	printf '#!%s\nfrom deployments.cli import app\napp()\n' "$(CURDIR)/$(BIN)/python" > $(BIN)/proposer && chmod +x $(BIN)/proposer
	touch $(STAMP)

install: $(STAMP) ## Install everything into .venv

browser: ## Install chromium for the browser test, where there is none; as root
	@for name in "$$CHROMIUM" chromium chromium-browser google-chrome-stable google-chrome; do \
		command -v "$$name" >/dev/null && exit 0; \
	done; \
	[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || { \
		echo "make browser: no chromium on PATH; install one (as root: apt-get install chromium), or set CHROMIUM" >&2; exit 1; }; \
	export DEBIAN_FRONTEND=noninteractive; apt-get update -qq </dev/null && \
	apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core </dev/null >/dev/null

demo: $(STAMP) ## Run the whole job against a local devnet; KEEP=1 stays up with the Prefect UI
	@$(BIN)/proposer demo $(if $(KEEP),--keep)

devnet: $(STAMP) ## Run a local devnet in .devnet; TELL=prover/stop breaks the one that runs, TELL=prover/start repairs it
	@$(BIN)/python -m infra.devnet --dir .devnet $(if $(TELL),--tell $(TELL))

# In three processes: acceptance tests mostly wait for others. A file's tests stay together, the long files come first.
# Some hold promises in seconds, which three at once on a small machine may break: what failed is judged alone, and said
test: $(STAMP) ## Run every test on real parts
	@$(MAKE) --no-print-directory browser || true  # the test that needs it says so
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder || { \
		[ $$? = 1 ] && echo "make test: what failed beside other tests is judged again, alone" && \
		$(BIN)/python -m pytest --last-failed --last-failed-no-failures none --maxfail 3; }

chaos: $(STAMP) ## Kill the proposer 100 times among seeded faults and judge what is left; KILLS=, SEED=, LOGS=folder
	@$(BIN)/python -m tests.chaos --kills $(KILLS) --seed $(SEED) $(if $(LOGS),--keep-logs $(LOGS))

bench: $(STAMP) ## Measure dead time, cycles, polling, memory and the rest against the seed's policy; SHORT=1, SEED=, LOGS=folder
	@$(BIN)/python -m tests.bench --seed $(SEED) $(if $(SHORT),--short) $(if $(LOGS),--keep-logs $(LOGS))

fleet: $(STAMP) ## Measure 1, 5 and 10 rollups on one Prefect server; SIZES=, STANDBY=1, SEED=, LOGS=folder, ARGS=; needs PostgreSQL's contrib
	@$(BIN)/python -m tests.fleet --sizes $(or $(SIZES),1,5,10) --seed $(SEED) $(if $(STANDBY),--standby) $(if $(LOGS),--keep-logs $(LOGS)) $(ARGS)

lint: $(STAMP) ## Check style, formatting and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP) ## Check types, strictly in the core
	$(BIN)/basedpyright

audit: $(STAMP) ## Check the lock, what is installed, and the licences
	$(BIN)/python -m infra.audit

docs: $(STAMP) ## Write docs/configuration.md from the settings in the code
	$(BIN)/python -m deployments.reference

retention: $(STAMP) ## Measure what Prefect's vacuum keeps over 10,000 cycles
	RETENTION_CYCLES=10000 $(BIN)/python -m pytest tests/acceptance/test_retention.py -s

clean: ## Remove the environment
	rm -rf $(VENV)
