"""Correct TXM images from Python: everything that a notebook needs.

The same work as the command and the panels, by the same `workflows`. Raw data are never changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from napari_txm_bgcorr.core import Scan
from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.workflows import (
    Bars,
    CorrectionConfig,
    CorrectionResult,
    correct_scan,
    path_of,
    paths_of,
    reference_stack,
    scan_of,
    with_arrays,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_txm_bgcorr.training import TrainStep

__all__ = [
    "correct",
    "list_methods",
    "list_models",
    "measure_quality",
    "read",
    "stitch",
    "train",
]

Place: TypeAlias = str | PathLike[str]
Images: TypeAlias = Any
"""Array `(Y, X)` or `(N, Y, X)` in counts, path, or sequence of either."""


def read(
    path: Place, *, grid: tuple[int, int] | None = None, pixel_nm: float | None = None
) -> Scan:
    """Read a file or folder of any known format; pixels are read when they are asked for.

    Parameters
    ----------
    path : str or Path
        Xradia, TIFF, HDF5, OME-Zarr, or a folder of tiles.
    grid : (rows, columns), optional
        Of a mosaic, where the files do not say.
    pixel_nm : float, optional
        Pixel size on the sample, nm, instead of the file's own.

    Returns
    -------
    Scan

    Raises
    ------
    ReadError
        If it cannot be read, naming file, value and remedy.
    """
    from napari_txm_bgcorr import io

    asked = CorrectionConfig(grid=grid, pixel_nm=pixel_nm)  # checked
    return io.read(path_of(path, "path"), grid=asked.grid, pixel_nm=asked.pixel_nm)


def correct(
    images: Images | Scan,
    *,
    references: Images = None,
    darks: Images = None,
    method: str = "auto",
    model: Place = "default",
    device: str = "auto",
    grid: tuple[int, int] | None = None,
    pixel_nm: float | None = None,
    joint: bool | None = None,
    combine: str | None = None,
    i0: float | None = None,
    force: bool = False,
    progress: bool = False,
) -> CorrectionResult:
    """Predict the background of every tile and divide it out.

    Parameters
    ----------
    images : array, str, Path, or Scan
        Raw counts: an image `(Y, X)`, a stack `(T, Y, X)` (a mosaic where `grid` is given, else
        a series), NumPy or dask; a file or folder; or a scan from `read`.
    references : array, str, Path, or sequence of them, optional
        Images without the sample. Default: those of the file, else none.
    darks : array, str, Path, or sequence of them, optional
        Images without beam; the median is used.
    method : str
        One of `list_methods`.
    model : str or Path
        One of `list_models`, a weights file or a run folder.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    grid : (rows, columns), optional
        Of a mosaic; not for a scan, which has its own.
    pixel_nm : float, optional
        Pixel size on the sample, nm; likewise.
    joint : bool, optional
        Solve the backgrounds of all tiles together; None: as the method does.
    combine : str, optional
        How ``captured`` makes one of several references.
    i0 : float, optional
        Counts of the open beam, dark removed: sets the level.
    force : bool
        Correct even what is a corrected result already.
    progress : bool
        Show bars.

    Returns
    -------
    CorrectionResult
        Fitted; tiles are computed when they are looked at.

    Raises
    ------
    TxmError
        Naming the argument or file, its value and the remedy.
    """
    config = CorrectionConfig(
        inputs=() if isinstance(images, Scan) else paths_of(images, "images"),
        references=paths_of(references, "references"),
        darks=paths_of(darks, "darks"),
        method=method,
        model=str(model),
        device=device,
        grid=grid,
        pixel_nm=pixel_nm,
        joint=joint,
        combine=combine,
        i0=i0,
        force=force,
    )
    scan = scan_of(images, config)
    scan, from_memory = with_arrays(scan, config, references, darks)
    repeatable = bool(config.inputs) and not from_memory
    with Bars(quiet=not progress) as bars:
        done = correct_scan(scan, config, bars.progress, repeatable=repeatable)
    return CorrectionResult(done, flat=getattr(images, "ndim", 3) == 2)


def stitch(
    corrected: Place | CorrectionResult,
    path: Place,
    *,
    parts: Sequence[str] = ("corrected",),
    domain: str = "transmission",
    format: str = "omezarr",
    overwrite: bool = False,
) -> Path:
    """Blend the tiles of a corrected mosaic into one picture that can be zoomed.

    Parameters
    ----------
    corrected : str, Path or CorrectionResult
        A result of `correct`, or one that was saved.
    path, parts, domain, format, overwrite
        As of `CorrectionResult.stitch`.

    Returns
    -------
    Path

    Raises
    ------
    TxmError
        As `CorrectionResult.stitch`; or if the saved result cannot be read.
    """
    if isinstance(corrected, CorrectionResult):
        return corrected.stitch(
            path, parts=parts, domain=domain, format=format, overwrite=overwrite
        )
    from napari_txm_bgcorr.workflows import stitch_path

    out = path_of(path, "path")
    stitch_path(
        path_of(corrected, "corrected"), out, parts, domain=domain, format=format,
        overwrite=overwrite,
    )  # fmt: skip
    return out


def measure_quality(
    corrected: Place | CorrectionResult, *, progress: bool = False
) -> dict[str, Any]:
    """Measure each tile of a corrected scan: seams, shared patterns, levels, flags.

    Parameters
    ----------
    corrected : str, Path or CorrectionResult
        A result of `correct`, or one that was saved.
    progress : bool
        Show a bar.

    Returns
    -------
    dict
        JSON-ready: ``tiles``, one row each with its figures and ``flags``; ``flagged``, numbers
        of the flagged tiles; ``worst``, those to look at first; ``flags``, rule and count of
        each flag; ``registered``, whether neighbours were registered.

    Raises
    ------
    ReadError
        If it is no complete result.
    """
    from napari_txm_bgcorr.workflows import measure_corrected, measure_output, summarise

    with Bars(quiet=not progress) as bars:
        if isinstance(corrected, CorrectionResult):
            gauge = measure_corrected(corrected._corrected, bars.progress)
            return summarise(str(corrected.scan.source.path), gauge.table())
        output, gauge = measure_output(path_of(corrected, "corrected"), progress=bars.progress)
    return summarise(str(output.path), gauge.table())


def train(
    run: Place,
    *,
    references: Images = None,
    samples: Sequence[Place] | Place | None = None,
    pairs: Sequence[Place] | None = None,
    darks: Images = None,
    preset: Place = "fine-tune",
    minutes: float | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    resume: bool = False,
    on_step: Callable[[TrainStep], None] | None = None,
) -> Path:
    """Train or fine-tune a model; everything about the run is in its folder.

    Parameters
    ----------
    run : str or Path
        Folder of the run.
    references : array, str, Path, or sequence of them, optional
        Images without the sample.
    samples : str, Path, or sequence of them, optional
        Corrected images (transmission) of clean samples.
    pairs : sequence of str or Path, optional
        Raw images and their backgrounds, alternating.
    darks : array, str, Path, or sequence of them, optional
        Images without beam.
    preset : str or Path
        ``fine-tune``, ``from-nothing``, ... or a YAML file.
    minutes : float, optional
        Time; None: as the preset says.
    settings : mapping, optional
        More settings by dotted name: ``{"loss_weights.fft_l1": 0.1}``.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    resume : bool
        Go on with the run that is in the folder.
    on_step : callable, optional
        Called with a `TrainStep` after each step.

    Returns
    -------
    Path
        The model, for ``correct(..., model=path)``.

    Raises
    ------
    TxmError
        If a setting or an image is not usable, or the training fails.

    Notes
    -----
    Where worker processes draw the images, as they do beside a GPU, a script must call this below
    ``if __name__ == "__main__":``, since each of them imports the script.
    """
    import json
    from multiprocessing import current_process

    from napari_txm_bgcorr.training import load_config, run_training
    from napari_txm_bgcorr.workflows import data_overrides, find_data

    if current_process().name != "MainProcess":
        raise ConfigError(
            "train: called again while a worker imports this script; put the call below "
            'if __name__ == "__main__":'
        )
    place = path_of(run, "run")
    if place.is_file():
        raise ConfigError(f"run {place}: a file; give the folder of the run")
    if settings is not None and not isinstance(settings, Mapping):
        raise ConfigError(f"settings {settings!r}: give a mapping, for example {{'minutes': 5}}")
    paths = {
        "references": references, "samples": samples, "pairs": pairs, "darks": darks,
    }  # fmt: skip
    given = data_overrides(
        *([str(path) for path in paths_of(value, name)] for name, value in paths.items())
    )
    more = dict(settings or {}) | ({} if minutes is None else {"minutes": minutes})
    given += [f"{name}={json.dumps(value, default=str)}" for name, value in more.items()]
    config = load_config(str(preset), given)
    data = find_data(config.data)
    if references is not None and not paths_of(references, "references"):
        stack = reference_stack(references, darks)
        data = replace(data, references=(*data.references, stack))
    return run_training(config, place, resume=resume, device=device, on_step=on_step, data=data)


def list_methods() -> list[str]:
    """Names of the background methods, for `correct`."""
    from napari_txm_bgcorr.backgrounds import method_names

    return method_names()


def list_models() -> list[str]:
    """Names of the models at hand, shipped and your own, for `correct`."""
    from napari_txm_bgcorr.models import list_models as names

    return list(names())
