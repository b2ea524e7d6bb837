# make demo: the whole experiment on the embedded default, offline, on a CPU.
# make lab: JupyterLab on the run notebooks.   make test: every test.   make quick: those of what changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed
OUT ?= demo_run

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo lab test quick golden install sync clean

demo: $(INSTALLED)
	$(BIN)/asr-nb demo --out $(OUT)

test: $(DEVELOPED)
	$(BIN)/python tools/test.py

# Store the results of the stages whose version was raised (see tests/golden.py).
golden: $(DEVELOPED)
	$(BIN)/python -m pytest -k golden_result --golden tests/test_golden.py tests/test_headroom.py

# The sync gate, style, and the tests that have to do with what changed: about a minute.
quick: $(DEVELOPED)
	$(BIN)/python tools/test.py --quick

# JupyterLab at a run notebook; it runs as it stands.
lab: $(INSTALLED)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[demo,lab]'
	$(BIN)/jupyter-lab nbs/lab/train.ipynb

install: $(INSTALLED)

# torch first and pinned: asked for by range it would bring gigabytes of CUDA along on a machine without a GPU.
$(INSTALLED): settings.ini constraints.txt setup.py pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "asr_nb needs Python 3.11 or later, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[demo]'
	touch $@

# What the tests need besides: every optional part, and the tools that turn notebooks into the package.
$(DEVELOPED): $(INSTALLED)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[demo,witness,codecs,ray,chinese,leaderboard,lab,dev]'
	touch $@

# Notebooks to package and README; then what a commit must leave unchanged.
sync: $(DEVELOPED)
	$(BIN)/nbdev-export
	$(BIN)/python tools/readme.py
	$(BIN)/nbdev-clean

clean:
	rm -rf $(VENV) $(OUT) *.egg-info build
