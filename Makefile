# Tasks of the project. `make help` lists them.

PREFIX ?= /usr/local
DESTDIR ?=
PYTHON ?= /usr/bin/python3
# The tools of a virtual environment in .venv, where there is one; else those on PATH.
TOOLS ?= $(if $(wildcard .venv/bin/pytest),.venv/bin/)

BIN = $(DESTDIR)$(PREFIX)/bin
LIB = $(DESTDIR)$(PREFIX)/lib/urunc
COMMIT = $(shell git rev-parse --short=12 HEAD 2>/dev/null)
MODULES = $(shell cd src && find urunc -name '*.py')

.DEFAULT_GOAL = help

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables of install: PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) PYTHON=$(PYTHON)"

guest: ## build the programs that run inside guests
	$(MAKE) -C guest

install: guest ## install urunc into PREFIX, below DESTDIR, to be run by PYTHON
	rm -rf $(LIB)/urunc $(LIB)/cpython-*
	cd src && for file in $(MODULES); do install -D -p -m 644 $$file $(LIB)/$$file || exit 1; done
	$(if $(COMMIT),echo $(COMMIT) > $(LIB)/urunc/commit)
	$(PYTHON) -IX no_debug_ranges scripts/compile.py $(LIB) $(PREFIX)/lib/urunc bin/loader.py
	install -d $(LIB)/guest
	install -m 755 guest/build/urunc-init* $(LIB)/guest
	chmod -R u=rwX,go=rX $(LIB)
	install -d -m 755 $(BIN)
	$(call entry,urunc,urunc.__main__)
	$(call entry,containerd-shim-urunc-v2,urunc.shim.__main__,bin/shim.in)

# An entry point: a few lines, since it is the one file that is compiled anew at each start. What is before it, as
# bin/shim.in, has a first line of its own.
entry = (cat $(3) /dev/null; sed '$(if $(3),1d)' bin/entry.in) | sed 's|@PYTHON@|$(PYTHON)|; s|@MODULE@|$(2)|' > $(BIN)/$(1) \
	&& chmod 755 $(BIN)/$(1)

uninstall: ## remove what install has put there
	rm -f $(BIN)/urunc $(BIN)/containerd-shim-urunc-v2
	rm -rf $(LIB)

test: guest ## run the tests; those that need root or an engine say so
	$(TOOLS)pytest $(ARGS)

lint: ## check form, style and types
	$(TOOLS)ruff format --check .
	$(TOOLS)ruff check .
	$(TOOLS)mypy

format: ## bring the code into the house's form
	$(TOOLS)ruff format .
	$(TOOLS)ruff check --fix .

docs: ## build the documentation into site/
	$(PYTHON) -B scripts/support.py --write
	$(TOOLS)mkdocs build --strict

bench: ## measure what each verb costs, against the bare interpreter and runc
	$(PYTHON) bench/startup.py $(ARGS)

clean: ## remove what was built
	$(MAKE) -C guest clean
	rm -rf build site .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests scripts bench -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help guest install uninstall test lint format docs bench clean
