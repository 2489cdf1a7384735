# The one interface to this project, for people and for CI. Needs Python >= 3.11 and make; all else comes from the locks.
# `make` alone lists the verbs.

SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= $(shell for python in python3 python python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
# llama.cpp's server is compiled once and kept from checkout to checkout; the model that it serves is written by a script.
LLAMA := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/chatbot-llama/venv
TINY_MODEL ?= ../shared/upstream/tiny_model.py

.PHONY: help run chat test test-llama llama check lock bench chaos alerts k8s-test chart-docs clean venv environment-local environment-test

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: environment-local ## start everything on this machine: API, worker, Valkey, PostgreSQL (data in .data/)
	@$(BIN)/python -m local

chat: environment-local ## chat in the terminal with what `make run` started; CONVERSATION=conv_... continues one
	@$(BIN)/python -m local.chat $(if $(CONVERSATION),--conversation $(CONVERSATION))

# Most tests wait for something, so two processes share the files of all of them, each with servers of its own.
test: environment-test ## run all tests; TESTS="tests/test_x.py -k name" chooses
	$(BIN)/python -m pytest $(if $(TESTS),$(TESTS),--numprocesses 2 --dist loadfile)

test-llama: environment-test llama ## chat with llama.cpp's real server; TINY_MODEL= names the script that writes its model
	@if test -f '$(TINY_MODEL)'; then \
		LLAMA_PYTHON='$(LLAMA)/bin/python' TINY_MODEL='$(TINY_MODEL)' $(BIN)/python -m pytest tests/llama; fi

llama: ## compile llama.cpp's server (some 7 minutes, once; needs a C++ compiler)
	@if ! test -f '$(TINY_MODEL)'; then \
		echo '!!! SKIPPED: NOTHING IS TESTED AGAINST llama.cpp: no $(TINY_MODEL); name it: make test-llama TINY_MODEL=...' >&2; \
	elif ! cmp -s requirements/llama.txt '$(LLAMA)/llama.lock'; then \
		echo 'compiling llama.cpp into $(LLAMA) ...' && \
		$(PYTHON) -m venv --clear '$(LLAMA)' && \
		'$(LLAMA)/bin/python' -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/llama.txt && \
		cp requirements/llama.txt '$(LLAMA)/llama.lock'; fi

check: environment-test ## format, lint, types, locks without hosts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@! grep -n '://' requirements/*.txt || { echo 'a lock names a host'; exit 1; }

lock: venv ## pin what pyproject.toml asks for in requirements/*.txt; keeps pins that still fit
	@$(BIN)/python -m pip install --quiet uv
	$(call lock,api,pyproject.toml --extra api)
	$(call lock,worker,pyproject.toml --extra worker)
	$(call lock,local,pyproject.toml --extra api --extra worker --extra local)
	$(call lock,test,pyproject.toml --extra api --extra worker --extra local --extra test)
	$(call lock,llama,requirements/llama.in)

bench: environment-test ## measure turns/s and items/s beside bare yardsticks (docs/benchmarks.md)
	@$(BIN)/python -m bench

chaos: environment-test ## attack the service and count what was lost; FAULT=3, SECONDS=1800, SEED=7, ITEMS=, REDIS=redis choose
	@$(BIN)/python -m tests.chaos $(if $(FAULT),--fault $(FAULT)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(SEED),--seed $(SEED)) $(if $(ITEMS),--items $(ITEMS)) $(if $(REDIS),--redis $(REDIS)) $(if $(JSON),--json)

alerts: environment-test ## make every alert fire and end on a real Prometheus (Debian's), and show every panel's values
	@PYTHONPATH=k8s-tests $(BIN)/python -m tests.drill $(PLACES)

k8s-test: environment-test ## test the chart; with KUBECONFIG also on that cluster (docs/kubernetes.md)
	$(BIN)/python -m pytest $(or $(TESTS),k8s-tests/chart --numprocesses 2 --dist loadfile)
	@if test -n '$(KUBECONFIG)'; then $(BIN)/python -m pytest k8s-tests/cluster; \
		else echo '!!! SKIPPED: NOTHING IS TESTED ON A CLUSTER: set KUBECONFIG' >&2; fi

chart-docs: environment-test ## write the chart's table of values from the comments in its values.yaml
	$(BIN)/python charts/readme.py

clean: ## remove the virtual environment and caches; keeps .data/, which holds your conversations
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

define lock
	$(BIN)/uv pip compile $(2) --python-version 3.11 --universal --generate-hashes --no-annotate \
		--no-emit-index-url --quiet -o requirements/$(1).txt
endef

# The virtual environment remembers the lock that it was last made from, so only a change of the lock costs time.
define install
	@cmp -s requirements/$(1).txt $(VENV)/$(1).lock || { \
		echo 'installing requirements/$(1).txt into $(VENV) ...' && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/$(1).txt && \
		cp requirements/$(1).txt $(VENV)/$(1).lock; }
endef

environment-local: venv
	$(call install,local)

environment-test: venv
	$(call install,test)

venv:
	@test -n '$(PYTHON)' || { echo 'no Python >= 3.11 found; name it: make PYTHON=/path/to/python3'; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
		echo 'no virtual environment: on Debian and Ubuntu, apt install python3-venv'; exit 1; }
