"""Facts that people put into file names: order, grid, binning, exposure, references."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["NameFacts", "acquisition_numbers", "is_dark", "is_flat", "name_facts", "natural_key"]

_DIGITS = re.compile(r"(\d+)")
_EDGE = r"(?:^|(?<=[-_ ])|(?<=\D\.))"  # a token begins the name or follows a separator,
_END = r"(?=$|[-_ ]|\.(?!\d))"  # and ends it or is followed by one: no grid in "15x15um"
_GRID = re.compile(rf"{_EDGE}m?(\d{{1,2}})x(\d{{1,2}}){_END}", re.IGNORECASE)
_BINNING = re.compile(rf"{_EDGE}b(1|2|4|8){_END}", re.IGNORECASE)
_EXPOSURE = re.compile(rf"{_EDGE}(\d+(?:\.\d+)?)s(?:{_END}|(?=m\d+x\d+))", re.IGNORECASE)
# 8353eV, 8353_0eV, 08324.0_eV; of 3_8353eV the 3 is a number of its own
_ENERGY = re.compile(rf"{_EDGE}(\d{{3,6}}(?:[._]\d{{1,3}})?|\d{{1,3}}\.\d+(?=_?k))_?(k?)ev{_END}",
                     re.IGNORECASE)  # fmt: skip
_FLAT = re.compile(r"(ref(erence|s)?|flat(field)?s?|white)(?![a-z])", re.IGNORECASE)
_DARK = re.compile(r"dark(field)?s?(?![a-z])", re.IGNORECASE)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which ``tile_2`` comes before ``tile_10``."""
    parts = _DIGITS.split(name.casefold())
    return tuple((0, int(p), p) if p.isdecimal() and p.isascii() else (1, 0, p) for p in parts)


@dataclass(frozen=True)
class NameFacts:
    """Facts in a file name by the conventions of TLS BL01B (``Sb_m4x4-b2-60s``); None: not given.

    Attributes
    ----------
    grid : (rows, columns) or None
    binning : int or None
    exposure_s : float or None
    energy_ev : float or None
        As many microscopes write it: ``_8353_0eV``, ``_08324.0_eV_``, ``8.353keV``.
    """

    grid: tuple[int, int] | None = None
    binning: int | None = None
    exposure_s: float | None = None
    energy_ev: float | None = None


def name_facts(*names: str) -> NameFacts:
    """Read the tokens ``m4x4`` or ``5x5``, ``b2``, ``60s`` and ``8353eV``; the first name wins.

    Parameters
    ----------
    *names : str
        Names without suffix, the most telling first.

    Returns
    -------
    NameFacts
    """

    def first(pattern: re.Pattern[str]) -> re.Match[str] | None:
        return next((found for name in names if (found := pattern.search(name))), None)

    grid, binning, exposure = first(_GRID), first(_BINNING), first(_EXPOSURE)
    energy = first(_ENERGY)
    size = (int(grid[1]), int(grid[2])) if grid else (0, 0)
    return NameFacts(
        grid=size if min(size) > 0 else None,
        binning=int(binning[1]) if binning else None,
        exposure_s=float(exposure[1]) if exposure else None,
        energy_ev=_energy_ev(energy) if energy else None,
    )


def _energy_ev(found: re.Match[str]) -> float:
    return float(found[1].replace("_", ".")) * (1000 if found[2] else 1)


def acquisition_numbers(names: Sequence[str]) -> list[int] | None:
    """Running number of each name: the one group of digits in which the names differ.

    Parameters
    ----------
    names : sequence of str
        Names without suffix.

    Returns
    -------
    list of int or None
        None where the names differ in anything else, or there are fewer than two.
    """
    parts = [_DIGITS.split(name) for name in names]
    if len(parts) < 2 or any(p[::2] != parts[0][::2] for p in parts):
        return None
    numbers = [tuple(int(d) for d in p[1::2]) for p in parts]
    varying = [k for k, column in enumerate(zip(*numbers, strict=True)) if len(set(column)) > 1]
    return [n[varying[0]] for n in numbers] if len(varying) == 1 else None


def is_flat(name: str) -> bool:
    """Return True if the name is that of a reference without sample (``ref_001``, ``flat``)."""
    return _FLAT.match(name) is not None


def is_dark(name: str) -> bool:
    """Return True if the name is that of an image without beam (``dark_01``)."""
    return _DARK.match(name) is not None
