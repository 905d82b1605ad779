# Two commands do everything on a fresh clone: `make run` and `make test`. Plain `make` lists the others.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
SITE_TOOLS := .venv/site-tools
# Processes that run the tests, a file at a time; each starts workers of its own.
TESTERS ?= 2

.PHONY: help run test coverage check docs soak clean

help:
	@echo 'make run    install into .venv, then deduplicate the built-in sample data set; works offline'
	@echo 'make test   install into .venv (Airflow into .airflow-venv), then run the tests'
	@echo 'make coverage  the same, and which lines no test runs; takes longer'
	@echo 'make check  ruff, mypy and the import directions'
	@echo 'make docs   build the documentation site into site/; stops at every warning'
	@echo 'make soak   what takes long: the tests marked soak (an hour of fuzzing among them), and the benchmarks'
	@echo 'make clean  remove .venv, .airflow-venv, .azurite and caches; runs (fairdedup-run/) stay'

run: $(INSTALLED)
	$(BIN)/fairdedup run --keep 0.5

test: $(INSTALLED) $(SITE_TOOLS)
	$(BIN)/python -m pytest -m 'not soak' -n $(TESTERS) --dist loadfile --durations=20

coverage: $(INSTALLED) $(SITE_TOOLS)
	$(BIN)/python -m pytest -m 'not soak' -n $(TESTERS) --dist loadfile --cov --cov-report=term:skip-covered

check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_imports.py

docs: $(INSTALLED) $(SITE_TOOLS)
	$(BIN)/mkdocs build --strict

# pytest ends with 5 where no test is marked soak.
soak: $(INSTALLED)
	$(BIN)/python -m pytest -m soak --timeout=0 || test $$? -eq 5
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/sample.py
	$(BIN)/python benchmarks/scale.py

clean:
	rm -rf .venv .airflow-venv .azurite build dist site .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find fairdedup tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# uv installs in a third of pip's time; pip steps in where uv cannot, as where only pip's own settings name an index.
# The loops of a decision are compiled now too, instead of by the first run.
# Bytecode is compiled now: where PYTHONDONTWRITEBYTECODE is set, every process would else compile torch anew.
# The stamp is written last: an installation that was stopped is made again.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo '$(PYTHON) is not Python 3.11 or later: name another, as in make run PYTHON=python3.12' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -e '.[dev]' || \
	  $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m fairdedup.warm_up
	@touch $@

# What builds the site and runs the notebook, which the tests do too.
$(SITE_TOOLS): $(INSTALLED)
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -e '.[docs]' || \
	  $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[docs]'
	@touch $@
