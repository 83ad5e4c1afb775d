"""Whatever damaged bytes do inside a decoding library becomes one line for the user."""

from __future__ import annotations

import errno
import logging
import lzma
import shutil
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from napari_txm_bgcorr.core import is_busy, standing
from napari_txm_bgcorr.errors import ReadError, TxmError, WriteError

__all__ = ["MAX_PIXELS", "check_frame", "one_line", "reading", "require_file", "writing"]

MAX_PIXELS = 2**28  # of one tile; larger than any camera, small enough to be read at all

_TOO_LONG, _LONG = (2, 3, 206), 180  # what Windows says of a path beyond 260 with what we add
_FULL = 2**20  # bytes; a disk with less room than this is full

# Everything seen from tifffile, h5py, zarr and their decoders on damaged input. Not listed:
# KeyboardInterrupt, SystemExit and our own errors.
_DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    EOFError,
    SyntaxError,
    AssertionError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)

_quiet: ContextVar[bool] = ContextVar("quiet", default=False)
logging.getLogger("tifffile").addFilter(lambda record: not _quiet.get())


def one_line(error: BaseException | str, limit: int = 200) -> str:
    """Text of an error on one line of at most `limit` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn any failure while decoding `what` in `path` into one `ReadError`.

    Parameters
    ----------
    path : Path
        File being read.
    what : str
        Part of it, for the message.

    Raises
    ------
    ReadError
        In place of whatever the decoding library raised.
    """
    token = _quiet.set(True)
    try:
        yield
    except TxmError:
        raise
    except PermissionError as error:
        raise ReadError(f"{path}: no permission to read; change its access rights") from error
    except FileNotFoundError as error:
        raise ReadError(f"{path}: no such file; check the path") from error
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
            raise _damaged(path, what, error) from error
        raise ReadError(f"{path}: {error.strerror}; check the path") from error
    except MemoryError as error:
        raise ReadError(
            f"{path}: {what}: does not fit in memory; its header lies or the image must be cut"
        ) from error
    except _DAMAGE as error:
        raise _damaged(path, what, error) from error
    finally:
        _quiet.reset(token)


def _damaged(path: Path, what: str, error: BaseException) -> ReadError:
    return ReadError(
        f"{path}: {what}: {one_line(error)}; the file is damaged or cut short, copy it again"
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failing disk operation at `path` into one `WriteError`.

    Raises
    ------
    WriteError
        Naming the path and, where the disk is full, the free bytes.
    """
    try:
        yield
    except OSError as error:
        # NumPy's tofile, with which TIFFs are written, reports a full disk without its number
        unnumbered = error.errno is None and _free(path) < _FULL
        if unnumbered or error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WriteError(
                f"{path}: disk full ({_free(path)} bytes free); make room and run again, "
                "what is written is kept"
            ) from error
        if is_busy(error):
            raise WriteError(
                f"{path}: no permission to write, or another program has it open; close it there "
                "(in napari: its layers) and run again, what is written is kept"
            ) from error
        if getattr(error, "winerror", None) in _TOO_LONG and len(str(path)) > _LONG:
            raise WriteError(
                f"{path}: the path is too long for Windows; choose a shorter folder, or switch "
                "long paths on (how-to: install)"
            ) from error
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise WriteError(f"{path}: no permission to write; choose another folder") from error
        raise WriteError(f"{path}: {one_line(error)}; choose another folder") from error


def _free(path: Path) -> int:
    """Free bytes on the disk that holds `path` or its nearest existing parent."""
    place = standing(path)
    return 0 if place is None else shutil.disk_usage(place).free


def require_file(path: Path) -> None:
    """Refuse what is not a plain file with content: opening a pipe would hang.

    Raises
    ------
    ReadError
        If `path` is missing, empty, or a pipe, socket or device.
    """
    with reading(path, "file"):
        status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ReadError(f"{path}: not a plain file; give an image file or a folder")
    if status.st_size == 0:
        raise ReadError(f"{path}: the file is empty (0 bytes); copy it again")


def check_frame(
    path: Path, shape: tuple[int, ...], dtype: object, limit: float = MAX_PIXELS
) -> None:
    """Refuse a frame that is no grey image of plain numbers or too large to be one.

    Parameters
    ----------
    path : Path
        File, for the message.
    shape : tuple of int
        `(Y, X)` of one frame.
    dtype : numpy.dtype
        Integers or floats are taken.
    limit : float
        Pixels that a frame may have.

    Raises
    ------
    ReadError
        If the type is not a plain number, or a frame is empty or beyond the limit.
    """
    kind = getattr(dtype, "kind", "?")
    if kind not in "uif":
        raise ReadError(
            f"{path}: pixels of type {dtype}; save it as integers or floats (grey values)"
        )
    if len(shape) != 2 or min(shape) < 1:
        raise ReadError(f"{path}: frame of shape {tuple(shape)}; give images of (Y, X) pixels")
    if shape[0] * shape[1] > limit:
        raise ReadError(
            f"{path}: frame of {shape[0]} x {shape[1]} px exceeds {limit} px; "
            "its header lies, or cut it into tiles"
        )
