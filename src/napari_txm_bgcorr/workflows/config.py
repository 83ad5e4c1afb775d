"""Options of a correction, the same for the command line, the panel, files and Python."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from napari_txm_bgcorr.backgrounds import COMBINE
from napari_txm_bgcorr.errors import ConfigError

__all__ = ["FIT", "JOIN", "PARTS", "CorrectionConfig", "load_config", "parse_shard"]

PARTS = ("raw", "background", "corrected", "mask", "uncertainty")
FIT, JOIN = "fit", "join"  # shares of the work that are no tiles: before them, and after
RUN_ONLY = {"output", "overwrite", "scheduler", "shard"}  # how it ran, not what it is


class CorrectionConfig(BaseModel):
    """Options of a correction, validated.

    Raises
    ------
    ConfigError
        Naming the option, the value and what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: tuple[Path, ...] = Field((), description="Raw files, or folders of tiles.")
    output: Path | None = Field(None, description="Folder (or store) to make.")
    method: str = Field("auto", description="Row of the method table.")
    model: str = Field("default", description="A model's name, weights file or run folder.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    references: tuple[Path, ...] = Field(
        (), description="Images without the sample, or folders of them."
    )
    darks: tuple[Path, ...] = Field((), description="Images without beam, or folders of them.")
    grid: tuple[int, int] | None = Field(None, description="Rows and columns of a mosaic.")
    pixel_nm: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Pixel size on the sample, nm."
    )
    save: tuple[str, ...] = Field(
        ("raw", "background", "corrected"),
        description="Parts to write.",
    )
    format: str = Field("omezarr", description="omezarr, ometiff or tiff.")
    overwrite: bool = Field(False, description="Replace an earlier result, once the new is done.")
    force: bool = Field(False, description="Correct even what is already corrected.")
    stitch: bool = Field(False, description="Also blend the tiles of a mosaic into one picture.")
    joint: bool | None = Field(
        None, description="Solve the backgrounds of a scan together; None: as the method does."
    )
    combine: str | None = Field(
        None, description="How captured makes one of several references; None: as by itself."
    )
    i0: float | None = Field(None, description="Counts of the open beam, dark removed.")
    write_positions: bool = Field(False, description="Also write registered places for Fiji.")
    scheduler: str | None = Field(None, description="Where other processes do the work.")
    shard: str | None = Field(
        None, description="I/N: one share of N; fit: solve for all shares; join: only complete."
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_in_words(error)) from error

    @field_validator("inputs", "references", "darks", mode="before")
    @classmethod
    def _one_path(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | PathLike) else value

    @field_validator("save", mode="before")
    @classmethod
    def _named_parts(cls, value: Any) -> Any:
        return value.replace(" ", "").split(",") if isinstance(value, str) else value

    @field_validator("grid", mode="before")
    @classmethod
    def _rows_by_columns(cls, value: Any) -> Any:
        return value.lower().split("x") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _known_values(self) -> Self:
        for part in self.save:
            if part not in PARTS:
                raise ConfigError(f"--save {part}: not a part; choose from {', '.join(PARTS)}")
        if self.grid is not None and min(self.grid) < 1:
            raise ConfigError(f"--grid {self.grid}: give rows and columns of 1 or more")
        if not self.save:
            raise ConfigError("--save: nothing to save; give for example background,corrected")
        from napari_txm_bgcorr.io import WRITERS

        if self.format not in WRITERS:
            raise ConfigError(f"--format {self.format}: choose from {', '.join(WRITERS)}")
        if self.combine is not None and self.combine not in COMBINE:
            raise ConfigError(f"--combine {self.combine}: choose from {', '.join(COMBINE)}")
        if self.combine is not None and self.method != "captured":
            raise ConfigError(
                f"--combine {self.combine}: not for --method {self.method}; choose --method "
                "captured, or leave --combine out"
            )
        return self

    @model_validator(mode="after")
    def _uncertainty_is_stated(self) -> Self:
        """Refuse to save what the method does not state."""
        if "uncertainty" not in self.save or self.is_joint:
            return self
        from napari_txm_bgcorr.backgrounds import JOINT_BY_DEFAULT

        by_default = self.method in JOINT_BY_DEFAULT
        method = f"{self.method} --no-joint" if by_default else self.method
        remedy = "leave out --no-joint" if by_default else "add --joint, choose --method auto"
        raise ConfigError(
            f"--save uncertainty: --method {method} states none; {remedy}, or leave "
            "uncertainty out"
        )

    @model_validator(mode="after")
    def _can_be_shared(self) -> Self:
        """Refuse what several processes cannot do with one output."""
        if self.shard is None and self.scheduler is None:
            return self
        option = "--shard" if self.shard is not None else "--scheduler"
        if self.shard is not None and self.scheduler is not None:
            raise ConfigError("--shard: not together with --scheduler; choose one of them")
        if self.format != "omezarr":
            raise ConfigError(
                f"--format {self.format}: {option} writes omezarr only, where each tile is a "
                "chunk of its own; leave --format out"
            )
        if self.shard is not None:
            parse_shard(self.shard)
            if self.overwrite:
                raise ConfigError(
                    "--shard: not together with --overwrite, since no process knows which began; "
                    "remove the old output first"
                )
        return self

    @property
    def is_joint(self) -> bool:
        """True if the backgrounds of the whole scan are solved together."""
        from napari_txm_bgcorr.backgrounds import JOINT_BY_DEFAULT

        return self.method in JOINT_BY_DEFAULT if self.joint is None else self.joint

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts to write; stitching needs the corrected ones and the mask."""
        needed = ("corrected", "mask") if self.stitch else ()
        return tuple(dict.fromkeys((*self.save, *needed)))

    def replaced(self, **changes: Any) -> Self:
        """Copy with some options changed, checked again."""
        return type(self)(**{**dict(self), **changes})

    def record(self) -> dict[str, Any]:
        """Options stored in an output, JSON-ready: all that decide its pixels, with full paths.

        The machine and the number of processes are left out.
        """
        values: dict[str, Any] = json.loads(
            self._full().model_dump_json(exclude=RUN_ONLY, exclude_defaults=True)
        )
        return {"save": list(self.save), **values}

    def _full(self) -> Self:
        """Return the same with full paths, good from any folder."""
        model = Path(self.model)
        return self.replaced(
            inputs=_absolute(self.inputs),
            references=_absolute(self.references),
            darks=_absolute(self.darks),
            model=str(model.absolute()) if self.model and model.exists() else self.model,
        )

    def command(self) -> str:
        """Command line that makes the whole output, from any folder, in one process."""
        full = self._full()
        words: list[str] = ["txm-bgcorr", "correct", *map(str, full.inputs)]
        if self.output is not None:
            words += ["--output", str(self.output.absolute())]
        for name, option in OPTIONS.items():
            value = getattr(full, name)
            if value == type(self).model_fields[name].get_default() and name != "save":
                continue
            words += _words(option, value)
        return shlex.join(words)

    def write(self, path: Path) -> None:
        """Write as YAML, for `load_config` and ``txm-bgcorr correct --config``.

        Raises
        ------
        ConfigError
            If the file cannot be written.
        """
        values = json.loads(self.model_dump_json(exclude_defaults=True))
        try:
            path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"{path}: {error.strerror or error}; give a place that can be written"
            ) from error


OPTIONS = {
    "method": "--method", "model": "--model", "device": "--device", "references": "--reference",
    "darks": "--dark", "grid": "--grid", "pixel_nm": "--pixel-nm", "save": "--save",
    "format": "--format", "force": "--force", "stitch": "--stitch",
    "joint": "--joint", "combine": "--combine", "i0": "--i0",
    "write_positions": "--write-positions",
}  # fmt: skip
"""Field to option of ``txm-bgcorr correct``, where it changes the output."""


def _words(option: str, value: Any) -> list[str]:
    """One option as words of a command line."""
    if option == "--grid":
        return [option, f"{value[0]}x{value[1]}"]
    if option == "--save":
        return [option, ",".join(value)]
    if value is True:
        return [option]
    if value is False:
        return [option.replace("--", "--no-", 1)]
    if isinstance(value, tuple):
        return [word for one in value for word in (option, str(one))]
    return [option, str(value)]


def _absolute(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Full paths; what is no path, such as ``aperture``, as it is."""
    return tuple(path.absolute() if path.exists() else path for path in paths)


def _in_words(error: ValidationError) -> str:
    """First problem of a validation as one line."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"]) or "options"
    if first["type"] == "extra_forbidden":
        near = get_close_matches(name, CorrectionConfig.model_fields, n=1)
        hint = f", perhaps {near[0]} is meant" if near else ""
        return f"{name}: no such option{hint}; correct or remove it"
    message = str(first["msg"]).replace("a valid tuple", "a list, for example [a, b]")
    return f"{name} {str(first['input'])[:60]!r}: {message[:1].lower()}{message[1:]}; correct it"


def load_config(path: Path) -> CorrectionConfig:
    """Read the options of a correction from a YAML or JSON file, or from an output of it.

    Parameters
    ----------
    path : Path
        From `CorrectionConfig.write`, or a finished output, whose record holds them.

    Raises
    ------
    ConfigError
        If the file holds no such options, or one that is not usable.
    ReadError
        If the output cannot be read.
    """
    from napari_txm_bgcorr.io.output import is_record, recorded_config

    if path.is_dir() or path.suffix.lower() == ".tif" or is_record(path):
        return _parsed(recorded_config(path), path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error}); give a YAML file") from error
    except yaml.YAMLError as error:
        line = str(error).splitlines()[0]
        raise ConfigError(f"{path}: not valid YAML ({line}); correct the file") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path}: holds no 'option: value' lines; see --save-config")
    return _parsed(values, path)


def _parsed(values: Mapping[str, Any], path: Path) -> CorrectionConfig:
    try:
        return CorrectionConfig(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_shard(text: str) -> tuple[int, int] | None:
    """Read ``I/N``, where ``1 <= I <= N``; None for ``fit`` and ``join``.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    if text in (FIT, JOIN):
        return None
    first, _, last = text.partition("/")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise ConfigError(
            f"--shard {text}: give I/N with I from 1 to N, for example 3/16, or fit, or join"
        )
    return int(first), int(last)
