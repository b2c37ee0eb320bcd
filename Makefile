# make train [CONFIG=dmc-walker-walk] [ARGS="operation.seed=1 …"]     make test [ARGS="…"]
#
# Both use .venv, which they make if there is none, and install into it what the requirement files
# list. A torch that is in it already and satisfies them stays.

CONFIG ?= dmc-walker-walk
SUPPORTED = import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.10; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)

.PHONY: train test

train: .venv/installed-requirements.txt
	.venv/bin/python main.py --config $(CONFIG) $(ARGS)

test: .venv/installed-requirements-dev.txt
	.venv/bin/python -m pytest $(ARGS)

.venv/installed-%: % requirements.txt | .venv
	.venv/bin/python -m pip install -r $<
	touch $@

.venv:
	@test -n "$(PYTHON)" || { echo "Python 3.10, 3.11 or 3.12 is needed (PYTHON=… names one)"; exit 2; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip  # what old Pythons bring takes very long to resolve
