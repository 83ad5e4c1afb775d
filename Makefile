# make demo    simulate a mosaic, correct it with the shipped model, open napari on it
# make test    every check and every test
# Both install what they need first (make setup).
BIN := .venv/bin
XVFB := xvfb-run -a -s "-screen 0 1366x768x24" -n
export LIBGL_ALWAYS_SOFTWARE ?= 1

.PHONY: help setup demo test check unit gui gui-pyqt6 gui-pyside6 docs clean

help:
	@grep -E '^# make' Makefile

setup:
	@tools/setup.sh

demo: setup
	$(BIN)/python tools/demo.py

test: check docs unit gui

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python tools/check_house.py
	$(BIN)/mypy

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

unit: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -p no:pytest-qt -p no:napari --ignore=tests/gui -n auto --dist worksteal

# both at once: each waits more than it computes
gui: setup
	$(MAKE) --no-print-directory --jobs 2 --output-sync gui-pyqt6 gui-pyside6

# displays are looked for from different numbers on, or the two may take the same
gui-pyqt6:
	OMP_NUM_THREADS=1 QT_API=pyqt6 $(XVFB) 100 $(BIN)/pytest tests/gui

gui-pyside6:
	OMP_NUM_THREADS=1 QT_API=pyside6 $(XVFB) 200 $(BIN)/pytest tests/gui

clean:
	rm -rf .venv build dist site demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
