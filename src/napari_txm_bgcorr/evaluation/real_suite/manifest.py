"""The manifest of a real suite: scans, what is given with them, and their true backgrounds."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from napari_txm_bgcorr.errors import ConfigError

from .areas import Area, check_area

__all__ = ["MANIFEST", "FineTune", "RealCase", "load_manifest"]

MANIFEST = "real_cases.json"


class _StrictCase(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FineTune(_StrictCase):
    """Data that the model is fine-tuned on before the case is corrected with it.

    Attributes
    ----------
    references, darks : tuple of str
        Paths relative to the data folder.
    minutes : float
        Time to train.
    """

    references: tuple[str, ...] = Field(min_length=1)
    darks: tuple[str, ...] = ()
    minutes: float = Field(default=4, gt=0)


class RealCase(_StrictCase):
    """One scan, what is given with it, and how it is judged.

    All paths are relative to the data folder.

    Attributes
    ----------
    name : str
        Unique in the manifest.
    input : str
        What is corrected: a file, or a folder of tiles.
    truth : tuple of str
        References whose mean, each divided by its median, is the true background.
    tiles : tuple of str
        Files of the tiles to judge; empty: all tiles of `input`.
    free : dict of str to Area
        Part of a tile's name to the area of it that is free of sample.
    positions : str or None
        TileConfiguration with the places of a mosaic's tiles.
    references, darks : tuple of str
        What is given to the correction.
    methods : tuple of str
        Methods that must be judged, each with further options of ``correct``.
    args : tuple of str
        Further options of ``correct`` for every method.
    identity : bool
        The truth is what was given: a check, not ranked by error.
    judge : {"error", "seam"} or None
        What ranks the case; None: seam and spread where there are positions, else error.
    fine_tune : FineTune or None
        Fine-tune the model first; takes minutes.
    """

    name: str = Field(min_length=1)
    input: str
    truth: tuple[str, ...] = Field(min_length=1)
    tiles: tuple[str, ...] = ()
    free: dict[str, Area] = Field(default_factory=dict)
    positions: str | None = None
    references: tuple[str, ...] = ()
    darks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    identity: bool = False
    judge: Literal["error", "seam"] | None = None
    fine_tune: FineTune | None = None

    @field_validator("free")
    @classmethod
    def _drawn(cls, free: dict[str, Area]) -> dict[str, Area]:
        for area in free.values():
            check_area(area)
        return free

    @property
    def check(self) -> bool:
        """True if the truth is among the given references, so that copying it has no error."""
        tuned = () if self.fine_tune is None else self.fine_tune.references
        return self.identity or bool({*self.references, *tuned} & {*self.truth})

    @property
    def by(self) -> str:
        """Figure that ranks the methods: ``error``, or ``seam`` together with spread."""
        return self.judge or ("error" if self.positions is None else "seam")

    @property
    def slug(self) -> str:
        """Name for files and folders."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def is_truth(self, tile: str) -> bool:
        """Return True if a tile (path without suffix) is part of the truth; its error is void."""
        return tile in {str(Path(path).with_suffix("")) for path in self.truth}

    def area_of(self, tile: str) -> Area | None:
        """Area of a tile that is free of sample, where it is known."""
        return next((area for part, area in self.free.items() if part in tile), None)


def load_manifest(*paths: Path) -> list[RealCase]:
    """Read manifests.

    Parameters
    ----------
    *paths : Path
        JSON: a list of cases each.

    Raises
    ------
    ConfigError
        If one is missing, damaged, has unknown keys or wrong areas, or a name comes twice.
    """
    cases = [case for path in paths for case in _cases(path)]
    slugs = [case.slug for case in cases]
    twice = next((c.name for c in cases if slugs.count(c.slug) > 1), None)
    if twice is not None:
        where = " and ".join(map(str, paths))
        raise ConfigError(f"{where}: case {twice!r} comes twice; rename one")
    return cases


def _cases(path: Path) -> list[RealCase]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror or error}; name the folder with --data, or the "
            "manifest with --manifest"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path}: no JSON: {error}; restore the file") from error
    try:
        return TypeAdapter(list[RealCase]).validate_python(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first(error, content)}") from error
    except ConfigError as error:  # of an area
        raise ConfigError(f"{path}: {error}") from error


def _first(error: ValidationError, content: Sequence[object]) -> str:
    """Name case, key and fault of the first error."""
    first = error.errors()[0]
    places = [str(part) for part in first["loc"]]
    if places and isinstance(content, list):
        case = content[int(places[0])]
        name = case.get("name", places[0]) if isinstance(case, dict) else places[0]
        places[0] = f"case {name!r}"
    return f"{': '.join(places) or 'list of cases'}: {first['msg']}; see the manifest's format"
