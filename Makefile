# `make` alone tells what there is.
#
# train and test use .venv, which they make if there is none, and install into it what pyproject.toml asks for, in the
# versions of constraints.txt. A torch that is in it already and satisfies pyproject.toml stays.

CONFIG ?= dmc-walker-walk
ELSE = --config --resume --evaluate --list --help -h  # options that take the place of --config $(CONFIG)
SUPPORTED = import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)

define HELP
make train CONFIG=quick-cartpole-swingup     train; CONFIG is a file of configs/ ($(CONFIG), which needs a GPU)
make train ARGS="operation.seed=1 …"         with other values; configs/dreamer.yml explains every key
make train ARGS="--resume latest"            go on with the newest run
make train ARGS="--evaluate latest"          play what it has learned; --list: all runs; --help: the rest
make test [ARGS="tests/replay/test_buffer.py …"]    the tests; COVERAGE="-m slipcover --source dreamer" tells what they run

In a shell of your own: . .venv/bin/activate, then python main.py --help
endef
export HELP

.PHONY: help train test

help:
	@echo "$$HELP"

train: .venv/installed
	.venv/bin/python main.py $(strip $(if $(filter $(ELSE) $(ELSE:=%),$(ARGS)),,--config $(CONFIG)) $(ARGS))

test: .venv/installed-dev
	.venv/bin/python $(COVERAGE) -m pytest $(ARGS)

.venv/installed: EXTRAS =
.venv/installed-dev: EXTRAS = [dev]
.venv/installed .venv/installed-dev: pyproject.toml constraints.txt | .venv
	.venv/bin/python -m pip install -c constraints.txt -e ".$(EXTRAS)"
	.venv/bin/python -m pip install -c constraints.txt --no-deps dm_control  # labmaze has no wheels for Python 3.13
	touch $@

.venv:
	@test -n "$(PYTHON)" || { echo "Python 3.10 to 3.13 is needed (PYTHON=… names one)"; exit 2; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip  # what old Pythons bring takes very long to resolve
