"""Choices of the user in the correction panel, without Qt, and their conversion to a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from psygnal import SignalGroupDescriptor

from napari_txm_bgcorr.backgrounds import COMBINE, Captured
from napari_txm_bgcorr.core import Scan
from napari_txm_bgcorr.errors import AlreadyCorrectedError, ConfigError
from napari_txm_bgcorr.workflows import CorrectionConfig

__all__ = [
    "FORMATS",
    "FORMAT_SUFFIX",
    "CorrectionJob",
    "InputInfo",
    "JobInput",
    "Session",
    "model_label",
    "resolve",
]

FORMATS = {"omezarr": "OME-Zarr", "ometiff": "OME-TIFF", "tiff": "TIFF files"}
FORMAT_SUFFIX = {"omezarr": ".ome.zarr", "ometiff": " OME-TIFF", "tiff": " TIFF"}


def model_label(model: str) -> str:
    """Short name of a model: its own, or that of its run."""
    path = Path(model)
    if path.suffix != ".safetensors":
        return model
    return path.parent.name if path.stem == "model" else path.stem


@dataclass(frozen=True, eq=False)
class InputInfo:
    """A layer the user has selected, as far as the decision to correct it needs it.

    Attributes
    ----------
    name : str
        The layer's name.
    key : int
        What the panel finds the layer by.
    kind : str
        napari's name of the layer type, for example ``"image"``.
    ndim : int
        Number of axes, colour not counted.
    rgb : bool
        Whether it is a colour image.
    role : str or None
        ``"raw"``, ``"background"``, ``"corrected"``, ``"stitched"``; None for a layer of
        another origin.
    scan : Scan or None
        The raw tiles behind the layer; None where it holds none.
    """

    name: str
    key: int = 0
    kind: str = "image"
    ndim: int = 2
    rgb: bool = False
    role: str | None = None
    scan: Scan | None = None


@dataclass
class Session:
    """The panel's state. Every change is announced on `events`.

    Attributes
    ----------
    inputs : tuple of InputInfo
        The selected layers.
    method, model, device : str
        Names as the command line takes them.
    references, darks : tuple of Path
        Files or folders of reference and dark images.
    combine : str
        How ``captured`` makes one of several references.
    joint : bool
        Refine the backgrounds over the whole mosaic or series.
    again : bool
        Correct even what is already corrected.
    save_format : str
        One of `FORMATS`.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    inputs: tuple[InputInfo, ...] = ()
    method: str = "auto"
    model: str = "default"
    device: str = "auto"
    references: tuple[Path, ...] = ()
    darks: tuple[Path, ...] = ()
    combine: str = COMBINE[0]
    joint: bool = True
    again: bool = False
    save_format: str = "omezarr"


@dataclass(frozen=True, eq=False)
class JobInput:
    """One scan to correct and the name of its layers."""

    name: str
    key: int
    scan: Scan


@dataclass(frozen=True, eq=False)
class CorrectionJob:
    """Everything a run needs; nothing in it changes while it runs."""

    inputs: tuple[JobInput, ...]
    config: CorrectionConfig


def resolve(session: Session) -> CorrectionJob:
    """Turn the choices into a job, or say why that cannot be.

    Raises
    ------
    ConfigError
        If nothing usable is selected.
    AlreadyCorrectedError
        If only corrected results are selected and `session.again` is not set.
    """
    wanted = _wanted(session.inputs, session.again)
    return CorrectionJob(
        tuple(_job_input(info, session.again) for info in wanted),
        CorrectionConfig(
            method=session.method,
            model=session.model,
            device=session.device,
            references=tuple(session.references),
            darks=tuple(session.darks),
            force=session.again,
            joint=session.joint,
            combine=session.combine if session.method == Captured.name else None,
            format=session.save_format,
        ),
    )


def _wanted(inputs: Sequence[InputInfo], again: bool) -> Sequence[InputInfo]:
    """Leave results aside where raw data are selected beside them."""
    if not inputs:
        raise ConfigError("no input: drop a file or folder here, or select an image layer")
    fresh = [info for info in inputs if info.role in (None, "raw")]
    return fresh if fresh and not again else inputs


def _job_input(info: InputInfo, again: bool) -> JobInput:
    _refuse_no_counts(info)
    if info.role == "stitched":
        raise ConfigError(
            f"{info.name}: a stitched picture; correct the tiles it was made of instead"
        )
    if info.role == "corrected" and not again:
        raise AlreadyCorrectedError(
            f"{info.name}: already corrected; select the raw layer, or tick “Correct again anyway”"
        )
    if info.role == "uncertainty":
        raise ConfigError(f"{info.name}: an uncertainty, not raw data; select the raw layer")
    if info.role == "background" and not again:
        raise ConfigError(f"{info.name}: a background, not raw data; select the raw layer")
    if info.scan is None:
        raise ConfigError(f"{info.name}: holds no tiles; select an image layer")
    return JobInput(name=_stem(info.name), key=info.key, scan=info.scan)


def _refuse_no_counts(info: InputInfo) -> None:
    if info.kind != "image":
        raise ConfigError(
            f"{info.name}: a {info.kind} layer has no counts to correct; select an image layer"
        )
    if info.rgb:
        raise ConfigError(
            f"{info.name}: a colour image has no counts to correct; select a grey image layer"
        )
    if info.scan is not None and info.scan.tiles.dtype.kind not in "uif":
        raise ConfigError(
            f"{info.name}: pixels of type {info.scan.tiles.dtype} are no counts; "
            "select an image of integers or floats"
        )
    if info.ndim not in (2, 3):
        raise ConfigError(
            f"{info.name}: {info.ndim} axes; select an image (Y, X) or a series (T, Y, X)"
        )


def _stem(name: str) -> str:
    return name.removesuffix(" raw") or name
