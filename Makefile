# Two commands do everything: `make book` and `make test`. Both may be interrupted and started again.
PYTHON ?= python3
BIN := .venv/bin
# book/_assets/explorer is drawn by the chapters themselves
SOURCES := $(shell find pointseg book runs -type f -not -name '*.pyc' -not -path 'book/_assets/explorer/*') _config.yml
LIBRARY := $(shell find pointseg -type f -not -name '*.pyc')
PAGE := _build/html/index.html
# Empty: Python keeps what it has compiled, whatever the shell says. A process that imports torch and
# the library takes a third of the time then, and tests and chapters start hundreds.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: book test env smoke clean absent

book: _build/.book
	@echo "The book is ready. Open: file://$(CURDIR)/$(PAGE)"

test: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check pointseg tests
	OMP_NUM_THREADS=1 timeout 1500 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

env: .venv/.ready

# The stamp is written last: an interrupted installation is simply taken up again. Python compiles
# what is imported; the four fifths that nobody imports need not be compiled now.
.venv/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[all]"
	touch $@

# Each method trains a few steps on Bestiary from points alone; a run that exists is not repeated.
smoke: env
	OMP_NUM_THREADS=1 $(BIN)/pointseg reproduce smoke

# A chapter that was touched changes no run: smoke is looked at again where its own sources changed.
_build/.smoke: .venv/.ready $(LIBRARY) book/experiment.py book/plan.yml $(if $(wildcard runs/smoke),,absent)
	$(MAKE) smoke
	mkdir -p _build
	touch $@

# Chapters that nothing changed keep their outputs (pointseg/bookkit/executed.py).
_build/.book: _build/.smoke $(SOURCES)
	OMP_NUM_THREADS=1 $(BIN)/jupyter-book build book --config _config.yml --path-output . -W -n --keep-going
	touch $@

clean:
	rm -rf _build
