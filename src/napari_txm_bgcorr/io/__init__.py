"""File formats to and from scans and corrections.

A format is a module with ``can_read(path) -> bool``, which judges by content, and
``read(path, *, grid=None) -> Scan``, and a row in `READERS`. Modules are imported when a path
is looked at, so that a TIFF needs neither h5py nor zarr.
"""

from __future__ import annotations

from .output.job import finished
from .output.out_place import check_place
from .output.writer import (WRITERS, OutputWriter, open_output)
from .readers.dispatch import (APERTURE, READERS, from_aperture, read, read_references)

__all__ = [
    "APERTURE",
    "READERS",
    "WRITERS",
    "OutputWriter",
    "check_place",
    "finished",
    "from_aperture",
    "open_output",
    "read",
    "read_references",
]
