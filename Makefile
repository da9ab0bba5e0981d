# Everything happens in the active virtual or conda environment; if there is none (conda's base does not count), in .venv.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install reproduce test lock clean

ACTIVE := $(or $(VIRTUAL_ENV),$(if $(filter-out base,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX)))
ENV := $(or $(ACTIVE),$(CURDIR)/.venv)
RUN := $(ENV)/bin/python
STAMP := $(ENV)/.studylib-installed
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
# The Python that .venv is made from: the first of these that is new enough, or what you name: make PYTHON=/path/to/python.
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell $(name) -c '$(SUPPORTED)' 2>/dev/null && echo $(name))) python3)

help:
	@echo "make reproduce   run every notebook at scale quick: runs/report/index.html       (ARGS='--scale small --publish')"
	@echo "make test        check the style and run the tests                               (ARGS='tests/test_cli.py')"
	@echo "                 FAST=1 leaves out what takes seconds"
	@echo "make install     set up the environment only"
	@echo "make lock        write the versions of this environment to requirements.lock"
	@echo "make clean       remove caches and build products; runs/ and .venv stay"
	@echo "environment: $(ENV)"

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@test -x "$(RUN)" || $(PYTHON) -c '$(SUPPORTED)' || \
		{ echo "error: Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is another; name one: make PYTHON=/path/to/python" >&2; exit 2; }
	@test -x "$(RUN)" || $(PYTHON) -m venv "$(ENV)"
	@"$(RUN)" -c '$(SUPPORTED)' || { echo "error: the Python of $(ENV) is not 3.11, 3.12 or 3.13; leave or remove it" >&2; exit 2; }
	"$(RUN)" -m pip install --quiet --disable-pip-version-check -r requirements.lock -e .
	@touch "$@"

reproduce: $(STAMP)
	"$(RUN)" -m studylib reproduce $(ARGS)

# Two workers of one thread each: the suite is made for two cores.
test: $(STAMP)
	"$(RUN)" -m ruff check .
	OMP_NUM_THREADS=1 "$(RUN)" -m pytest -n 2 --dist loadfile $(if $(FAST),-m "not slow") $(ARGS)

lock: $(STAMP)
	"$(RUN)" .ci/lock.py requirements.lock > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:
	rm -rf build .pytest_cache .ruff_cache *.egg-info requirements.lock.new
	find . -name .venv -prune -o -name runs -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
