# Set up once, run, test, report. `make` alone lists the targets.
#
#   make suite ARGS="--profile smoke"        options for benchmark.py
#   make test PYTEST_ARGS="-k losses"        options for pytest
#   make bench ARGS="--only decoding"        options for the benchmarks of speed
#   make venv PYTHON=/path/to/python3.11     another interpreter
#   make venv PIP_ARGS="--find-links DIR"    options for pip, e.g. where a CPU build of torch lies

SHELL := /bin/sh
VENV := .venv
LOCK := requirements.lock
# A copy of the lock file, written last: where it is missing or different, the environment is built again.
STAMP := $(VENV)/installed.lock
RUN := $(VENV)/bin/python
PYTHON ?=
PIP_ARGS ?=
PYTEST_ARGS ?=
ARGS ?=

# Candidates are run, not just looked up: a version manager's shim may exist and still fail.
SUPPORTED := import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 12) else 1)
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3 python)

.DEFAULT_GOAL := help
.PHONY: help venv suite test test-all report bench clean-venv
.DELETE_ON_ERROR:

help: ## list the targets
	@echo "genrec-bench:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)$$/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

venv: $(STAMP) ## set up .venv from requirements.lock (once; again when the lock file changes)

suite: $(STAMP) ## run every suite and write its report
	$(RUN) benchmark.py --suite all $(ARGS)

test: $(STAMP) ## run the tests, without those marked slow
	$(RUN) -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

test-all: $(STAMP) ## run all tests
	$(RUN) -m pytest -n 2 --dist loadfile -m "" $(PYTEST_ARGS)

report: $(STAMP) ## write the reports again from the records
	$(RUN) benchmark.py report --suite all $(ARGS)

bench: $(STAMP) ## measure the speed of decoding, exact search and training
	$(RUN) -m benchmarks $(ARGS)

clean-venv: ## remove .venv
	rm -rf $(VENV)

$(STAMP): $(LOCK)
	@if cmp -s $(LOCK) $(STAMP) && $(RUN) -c "" 2>/dev/null; then touch $(STAMP); exit 0; fi; \
	rm -f $(STAMP); \
	python=; for candidate in $(CANDIDATES); do \
	    if "$$candidate" -c '$(SUPPORTED)' >/dev/null 2>&1; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "Set-up needs Python 3.11 or 3.12; none of these runs as one: $(CANDIDATES)." >&2; \
	    echo "Install one (Debian 12: apt install python3 python3-venv) or name it:" >&2; \
	    echo "  make venv PYTHON=/path/to/python3.11" >&2; \
	    exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	    echo "$$python has no module to make virtual environments with." >&2; \
	    echo "Install it (Debian: apt install python3-venv) and run make again." >&2; \
	    exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$("$$python" --version) ($$python): a few minutes, once."; \
	if "$$python" -m venv --clear $(VENV) \
	    && $(RUN) -m pip install -qq --disable-pip-version-check $(PIP_ARGS) --no-deps -r $(LOCK) \
	    && $(RUN) -m pip install -qq --disable-pip-version-check $(PIP_ARGS) -c $(LOCK) torch \
	    && $(RUN) -c "import matplotlib, numpy, pandas, recbole, scipy, sklearn, torch"; \
	then cp $(LOCK) $(STAMP).new && mv $(STAMP).new $(STAMP); \
	else \
	    echo "Set-up did not finish; $(VENV) is not used until it has. Check the lines above, and:" >&2; \
	    echo "  - that pip reaches a package index (network, proxy, PIP_INDEX_URL); offline, give it the files:" >&2; \
	    echo "    make venv PIP_ARGS=\"--no-index --find-links DIR\"," >&2; \
	    echo "  - that the disk has room: about 2 GB with a CPU build of torch, 7 GB with its CUDA build," >&2; \
	    echo "  - that the packages have builds for this system (64-bit Linux or macOS). Then run make again." >&2; \
	    exit 1; \
	fi
