"""Flags on doubtful tiles, each with its own measured worth.

Thresholds and worth are in ``flag_worth.json``, written by ``python benchmarks/flags.py --write``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .table import COLUMNS, TileQuality

__all__ = ["FLAGS", "Flag", "Worth", "flagged", "raised", "reasons", "shown_flags", "worth"]

Mask = NDArray[np.bool_]

USELESS = 0.55  # area under the ROC curve (chance is 0.5): the whole interval must be above


@dataclass(frozen=True)
class Flag:
    """A reason to distrust a tile.

    Attributes
    ----------
    key : str
    label : str
        A few words for a table or button.
    column : str
        Row of `quality.table.COLUMNS` that is compared.
    meaning, remedy : str
        One sentence each.
    above : bool
        Raised where the value is above the threshold; else below.
    magnitude : bool
        Compare the value without its sign.
    of_level : bool
        Tells of the level of tiles; judged by it, not by the shape of their backgrounds.
    fact : bool
        States a fact about the tile and guesses nothing about its background: shown always.
    """

    key: str
    label: str
    column: str
    meaning: str
    remedy: str
    above: bool = True
    magnitude: bool = False
    of_level: bool = False
    fact: bool = False

    @property
    def threshold(self) -> float:
        """Value in the table's units at which it is raised."""
        if self.fact:
            return FACTS[self.key]
        limit = worth()[self.key].threshold
        return float("nan") if limit is None else limit

    @property
    def shown(self) -> bool:
        """True if the flag has proved to find bad tiles, in distribution and out of it."""
        return self.fact or worth()[self.key].works

    def score(self, quality: TileQuality) -> NDArray[np.float64]:
        """Suspicion `(T,)`: the higher the worse; NaN where it cannot be told."""
        values = quality.column(self.column)
        if self.magnitude:
            values = np.abs(values)
        return values if self.above else -values

    def raised(self, quality: TileQuality) -> Mask:
        """Tiles `(T,)` that it is raised for."""
        limit = self.threshold if self.above else -self.threshold
        with np.errstate(invalid="ignore"):  # NaN is never above
            return np.asarray(self.score(quality) > limit)

    def text(self) -> str:
        """Rule in words, for example ``seam after > 3.1 %``."""
        column = COLUMNS[self.column]
        sign = ">" if self.above else "<"
        value = f"{self.threshold * column.scale:.3g} {column.unit}".rstrip()
        return f"{column.label} {sign} {value}"


FACTS = {"blind": 0.5}

REDO = "Redo it with another method or a reference taken nearby."
FLAGS: dict[str, Flag] = {
    flag.key: flag
    for flag in (
        Flag("seam", "seam", "seam_after", "It differs from its neighbours in overlaps.", REDO),
        Flag("seam_shape", "seam shape", "seam_shape",
             "It differs from its neighbours by more than a level.", REDO),
        Flag("level", "level", "level", "It is brighter or darker than its neighbours.",
             "Run the joint stage.", magnitude=True),
        Flag("unsure", "level unsure", "level_error",
             "Little tells its level: few tiles of its rows show the beam.",
             "Take a reference nearby, or set the level from an empty area.", of_level=True),
        Flag("shared_residue", "shared residue", "shared_residue",
             "Fine pattern that all tiles share is left.",
             "Take more tiles or a reference.", magnitude=True),
        Flag("shared_shading", "shared shading", "shared_shading",
             "Shading that all tiles share is left in it.",
             "Take more tiles or a reference.", magnitude=True),
        Flag("departure", "odd background", "departure",
             "Its background has another shape than the others'.", REDO),
        Flag("jump", "jump", "jump", "Its background differs from those before and after.", REDO),
        Flag("leakage", "leakage", "leakage", "Its own structure is in its background.", REDO,
             magnitude=True),
        Flag("structure", "structure", "structure",
             "It has much coarse structure, which hides the beam.",
             "Take a reference."),
        Flag("novelty", "novel", "novelty", "The network was not trained on such images.",
             "Use a reference, or train further with your own."),
        Flag("blind", "few valid pixels", "valid", "Less than half of its pixels can be trusted.",
             "Look at the raw tile: dark, saturated or cut off.", above=False, fact=True),
    )
}  # fmt: skip
"""All flags, those that do not work included; `shown_flags` leaves these out."""


@dataclass(frozen=True)
class Worth:
    """Measured performance of a flag on bad tiles of simulated mosaics.

    Attributes
    ----------
    threshold : float or None
        Chosen on a set of its own; None: nothing was to choose from.
    judged : tuple of mapping
        For each ``method`` and ``set`` (seen: illumination and specimens as in training; unseen:
        others; rows: larger, some rows under a slab, judged by level): whether it ``decides``
        (what `correct` does by default, on sets judged by what the flag tells), ``auc``,
        ``precision``, ``recall`` and ``share`` of tiles flagged, each (value, low, high) with a
        95 % bootstrap interval over mosaics.
    """

    threshold: float | None
    judged: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Worth as stored in ``flag_worth.json``."""
        return cls(row["threshold"], tuple(row["judged"]))

    @property
    def works(self) -> bool:
        """True if the whole interval is better than chance, on seen and on unseen mosaics."""
        deciding = [row["auc"][1] for row in self.judged if row.get("decides")]
        lowest = [low for low in deciding if _known(low)]
        return self.threshold is not None and bool(lowest) and min(lowest) > USELESS


def _known(value: float | None) -> bool:
    """Return True if a figure is neither null nor NaN: a set may hold bad tiles only."""
    return value is not None and value == value


@lru_cache(maxsize=1)
def worth() -> Mapping[str, Worth]:
    """Measured worth of every flag that is no plain fact."""
    text = resources.files(__package__).joinpath("flag_worth.json").read_text(encoding="utf-8")
    return {key: Worth.of(row) for key, row in json.loads(text)["flags"].items()}


def shown_flags() -> dict[str, Flag]:
    """Flags to show as warnings."""
    return {key: flag for key, flag in FLAGS.items() if flag.shown}


def raised(quality: TileQuality) -> dict[str, Mask]:
    """Tiles `(T,)` for which each shown flag is raised."""
    return {key: flag.raised(quality) for key, flag in shown_flags().items()}


def flagged(quality: TileQuality) -> Mask:
    """Tiles `(T,)` with any shown flag raised."""
    found: Mask = np.any(list(raised(quality).values()), axis=0)
    return found


def reasons(quality: TileQuality, i: int) -> list[str]:
    """Flags raised for tile `i`, as keys of `FLAGS`."""
    return [key for key, found in raised(quality).items() if found[i]]
