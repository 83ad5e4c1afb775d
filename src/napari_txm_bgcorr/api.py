"""Correct TXM images from Python: everything that a notebook needs.

The same work as the command and the panels, by the same `workflows`. Raw data are never changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from napari_txm_bgcorr.core import ImageStack, Scan, TileArray, TrainingData, as_tiles
from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.workflows import Bars, CorrectionConfig, CorrectionResult, correct_scan

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
    from . import io

    return io.read(Path(path), grid=grid, pixel_nm=pixel_nm)


def correct(
    images: Images | Scan,
    *,
    references: Images = None,
    darks: Images = None,
    method: str = "auto",
    model: str = "default",
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
    model : str
        One of `list_models`, a weights file or a run folder.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    grid : (rows, columns), optional
        Of a mosaic.
    pixel_nm : float, optional
        Pixel size on the sample, nm.
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
        references=_paths(references),
        darks=_paths(darks),
        method=method,
        model=model,
        device=device,
        grid=grid,
        pixel_nm=pixel_nm,
        joint=joint,
        combine=combine,
        i0=i0,
        force=force,
    )
    scan = _scan(images, grid, pixel_nm)
    if references is not None and not config.references:
        scan = _with_flats(scan, as_tiles(_listed(references), "references"))
    if darks is not None and not config.darks:
        scan = replace(scan, darks=as_tiles(_listed(darks), "darks"))
    with Bars(quiet=not progress) as bars:
        done = correct_scan(scan, config, bars.progress)
    return CorrectionResult(done, flat=getattr(images, "ndim", 3) == 2)


def _scan(images: Any, grid: tuple[int, int] | None, pixel_nm: float | None) -> Scan:
    """Whatever was given as a scan."""
    if isinstance(images, Scan):
        return images
    if isinstance(images, (str, PathLike)):
        return read(images, grid=grid, pixel_nm=pixel_nm)
    paths = _paths(images)
    if paths:
        return _side_by_side(paths, grid, pixel_nm)
    return Scan.from_array(_listed(images), grid=grid, pixel_nm=pixel_nm)


def _side_by_side(
    paths: Sequence[Path], grid: tuple[int, int] | None, pixel_nm: float | None
) -> Scan:
    """Several files of one image each as one stack."""
    from napari_txm_bgcorr.workflows import side_by_side

    scans = [read(path, grid=grid, pixel_nm=pixel_nm) for path in paths]
    odd = next((s for s in scans if s.tiles.shape[1:] != scans[0].tiles.shape[1:]), None)
    if len(scans) == 1:
        return scans[0]
    if odd is not None or any(len(scan) > 1 for scan in scans):
        where = paths[0] if odd is None else odd.source.path
        raise ConfigError(
            f"images: {where}: several files are corrected together only if each is one image "
            "of the same size; correct it on its own"
        )
    return side_by_side(scans)


def _paths(given: Any) -> tuple[Path, ...]:
    """Paths among the ways of giving images; empty where they are arrays, or none."""
    if given is None:
        return ()
    if isinstance(given, (str, PathLike)):
        return (Path(given),)
    if isinstance(given, (list, tuple)) and given:
        if all(isinstance(one, (str, PathLike)) for one in given):
            return tuple(Path(one) for one in given)
        if any(isinstance(one, (str, PathLike)) for one in given):
            raise ConfigError("paths and arrays together; give either")
    return ()


def _listed(images: Any) -> Any:
    """A list of images as one stack; anything else as it is."""
    if isinstance(images, (list, tuple)):
        parts = [np.asarray(one) for one in images]
        if len({part.shape[-2:] for part in parts}) == 1:
            return np.concatenate([p[None] if p.ndim == 2 else p for p in parts])
    return images


def _with_flats(scan: Scan, flats: TileArray) -> Scan:
    """The scan with other references, of which nothing else is known."""
    return replace(
        scan, flats=flats, flat_times=None, flat_energies_ev=None, flat_exposures_s=None,
        flat_monitor=None,
    )  # fmt: skip


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

    stitch_path(
        Path(corrected), Path(path), parts, domain=domain, format=format, overwrite=overwrite
    )
    return Path(path)


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
        output, gauge = measure_output(Path(corrected), progress=bars.progress)
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
    """
    import json

    from napari_txm_bgcorr.training import load_config, run_training
    from napari_txm_bgcorr.workflows import data_overrides, find_data

    sample_paths, pair_paths = _paths(samples), _paths(pairs)
    given = data_overrides(
        *([str(path) for path in paths] for paths in (
            _paths(references), sample_paths, pair_paths, _paths(darks),
        ))
    )  # fmt: skip
    more = dict(settings or {}) | ({} if minutes is None else {"minutes": minutes})
    given += [f"{name}={json.dumps(value, default=str)}" for name, value in more.items()]
    config = load_config(str(preset), given)
    data = find_data(config.data)
    if references is not None and not _paths(references):
        data = _with_reference_arrays(data, references, darks)
    return run_training(
        config, Path(run), resume=resume, device=device, on_step=on_step, data=data
    )


def _with_reference_arrays(data: TrainingData, references: Any, darks: Any) -> TrainingData:
    """Training data with references from memory, which count as one session."""
    images = as_tiles(_listed(references), "references")
    dark = None
    if darks is not None and not _paths(darks):
        dark = np.median(as_tiles(_listed(darks), "darks")[:], axis=0).astype(np.float32)
    count = int(images.shape[0])
    stack = ImageStack(
        images, tuple(f"reference {k}" for k in range(count)), ("array",) * count, dark=dark
    )
    return replace(data, references=(*data.references, stack))


def list_methods() -> list[str]:
    """Names of the background methods, for `correct`."""
    from napari_txm_bgcorr.backgrounds import method_names

    return method_names()


def list_models() -> list[str]:
    """Names of the models at hand, shipped and your own, for `correct`."""
    from napari_txm_bgcorr.models import list_models as names

    return list(names())
