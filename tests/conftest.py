"""Fixtures shared by all tests: real data where it is at hand, and leak checks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def txm_data() -> Path:
    """Folder of real TXM files; the test is skipped where it is not on this machine."""
    folder = Path(os.environ.get("TXM_BGCORR_DATA", DEFAULT_DATA))
    if not (folder / "SOURCES.md").is_file():
        pytest.skip(f"real data not found in {folder}; set TXM_BGCORR_DATA to its folder")
    return folder


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail a test that leaves a data file open or a non-daemon thread running."""
    process = psutil.Process()
    files = {file.path for file in process.open_files()}
    threads = set(threading.enumerate())
    yield
    left_open = {
        file.path
        for file in process.open_files()
        if file.path not in files and Path(file.path).suffix in DATA_SUFFIXES
    }
    left_running = {t for t in threading.enumerate() if not t.daemon} - threads
    if left_open:
        pytest.fail(f"files left open: {sorted(left_open)}")
    if left_running:
        pytest.fail(f"threads left running: {sorted(t.name for t in left_running)}")


DATA_SUFFIXES = {
    ".xrm", ".txrm", ".txm", ".tif", ".tiff", ".h5", ".hdf5", ".nxs", ".safetensors", ".json",
    ".jsonl",
}  # fmt: skip
