"""Choices of the user in the training panel, without Qt, and their conversion to a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from psygnal import SignalGroupDescriptor

from napari_txm_bgcorr.errors import ConfigError

__all__ = [
    "PRESETS",
    "ROLES",
    "DataItem",
    "TrainJob",
    "TrainSession",
    "job_arguments",
    "new_run_folder",
    "resolve_training",
    "resume_arguments",
]

PRESETS = {"fine-tune": "Fine-tune on today's references", "from-nothing": "From nothing"}
ROLES = {
    "references": "References",
    "samples": "Clean samples",
    "raws": "Raw of pairs",
    "backgrounds": "Backgrounds of pairs",
    "darks": "Darks",
}
COMMAND_ROLES = ("references", "samples", "darks")
LONGEST_COMMAND = 30_000  # Windows takes 32,767 characters


@dataclass(frozen=True, eq=False)
class DataItem:
    """One file, folder, library or layer to learn from.

    Attributes
    ----------
    path : Path
        What the training is given; for a layer without a file, where it will be written.
    role : str
        One of `ROLES`.
    name : str
        Shown to the user.
    count : int
        Images in it.
    size : (Y, X)
        Of one image, pixels; (0, 0) where there are several sizes.
    warnings : tuple of str
        What looks wrong with it, one sentence each.
    array : (N, Y, X) array-like or None
        Pixels of a layer that no file holds, counts.
    """

    path: Path
    role: str
    name: str
    count: int = 0
    size: tuple[int, int] = (0, 0)
    warnings: tuple[str, ...] = ()
    array: Any = None


@dataclass
class TrainSession:
    """The panel's state. Every change is announced on `events`.

    Attributes
    ----------
    items : tuple of DataItem
    preset : str
        One of `PRESETS`.
    device : str
        As the command line takes it.
    changes : dict
        Settings that differ from the preset, by dotted key.
    more : str
        Further ``key=value`` settings, separated by blanks.
    run : Path or None
        Folder of the next run; None: a new one beside the others.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    items: tuple[DataItem, ...] = ()
    preset: str = "fine-tune"
    device: str = "auto"
    changes: Mapping[str, Any] = field(default_factory=dict)
    more: str = ""
    run: Path | None = None


@dataclass(frozen=True, eq=False)
class TrainJob:
    """Everything a new run needs; nothing in it changes while it is started."""

    run: Path
    items: tuple[DataItem, ...]
    preset: str
    device: str
    overrides: tuple[str, ...] = ()


def resolve_training(session: TrainSession, runs: Path) -> TrainJob:
    """Turn the choices into a job, or say why that cannot be.

    Parameters
    ----------
    session : TrainSession
    runs : Path
        Folder that takes the run where the user has named none.

    Raises
    ------
    ConfigError
        If references are missing for fine-tuning, pairs have no partner, or a setting is no
        ``key=value``.
    """
    kinds = {role: [i for i in session.items if i.role == role] for role in ROLES}
    if session.preset == "fine-tune" and not (kinds["references"] or kinds["raws"]):
        raise ConfigError("no references: drop today's reference images on “Data”")
    raws, backgrounds = len(kinds["raws"]), len(kinds["backgrounds"])
    if raws != backgrounds:
        raise ConfigError(
            f"pairs: {raws} files, folders or layers of raw images and {backgrounds} of "
            "backgrounds; add one of backgrounds for each of raw images, in the same order"
        )
    for word in session.more.split():
        if "=" not in word:
            raise ConfigError(f"Advanced, More: {word!r} is not of the form key=value")
    changed = [f"{key}={value}" for key, value in session.changes.items()]
    run = session.run or new_run_folder(runs, session.preset)
    return TrainJob(
        run=run,
        items=tuple(_placed(item, run, number) for number, item in enumerate(session.items)),
        preset=session.preset,
        device=session.device,
        overrides=(*changed, *session.more.split()),
    )


def _placed(item: DataItem, run: Path, number: int) -> DataItem:
    """A layer that no file holds gets a place in the run's folder."""
    if item.array is None:
        return item
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in item.name)[:60]
    return replace(item, path=run / "data" / f"{number:02d}_{name}.npy")


def new_run_folder(runs: Path, preset: str) -> Path:
    """Name of a run that is not there yet: date, time and preset."""
    name = f"{datetime.now():%Y-%m-%d_%H%M}_{preset}"
    path, count = runs / name, 1
    while path.exists():
        count += 1
        path = runs / f"{name}_{count}"
    return path


def job_arguments(job: TrainJob) -> list[str]:
    """Arguments of ``txm-bgcorr train`` for a job.

    Raises
    ------
    ConfigError
        If the files are too many for a command line.
    """
    paths: dict[str, list[str]] = {role: [] for role in ROLES}
    for item in job.items:
        paths[item.role].append(str(item.path))
    pairs = [
        path for pair in zip(paths["raws"], paths["backgrounds"], strict=True) for path in pair
    ]
    arguments = [job.preset, "--run", str(job.run)]
    for name, values in (("pairs", pairs), *((n, paths[n]) for n in COMMAND_ROLES)):
        arguments += [f"--{name}", *values] if values else []
    for override in job.overrides:
        arguments += ["--set", override]
    arguments += ["--device", job.device]
    if sum(len(word) + 3 for word in arguments) > LONGEST_COMMAND:
        raise ConfigError(
            f"data: {len(job.items)} paths are too many for a command; drop their folders instead"
        )
    return arguments


def resume_arguments(run: Path, device: str) -> list[str]:
    """Arguments of ``txm-bgcorr train`` that resume a run."""
    return ["--run", str(run), "--resume", "--device", device]
