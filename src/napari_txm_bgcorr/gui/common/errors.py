"""Errors of devices and disks as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from napari_txm_bgcorr.errors import DeviceError, ReadError

__all__ = ["errors_in_words"]


@contextmanager
def errors_in_words(subject: str) -> Iterator[None]:
    """Turn what a device or disk throws into errors that are shown as one line.

    napari's thread worker takes a RuntimeError for its own deletion and says nothing; PyTorch
    reports almost everything as one.

    Raises
    ------
    DeviceError
        In place of a RuntimeError or MemoryError.
    ReadError
        In place of an OSError.
    """
    try:
        yield
    except MemoryError as error:
        raise DeviceError(
            f"{subject}: out of memory; close other programs or correct fewer tiles at once"
        ) from error
    except RuntimeError as error:
        words = " ".join(str(error).split())[:300]
        raise DeviceError(f"{subject}: {words}; try another device or method") from error
    except OSError as error:
        raise ReadError(
            f"{error.filename or subject}: {error.strerror or error}; "
            "check the disk and the permissions"
        ) from error
