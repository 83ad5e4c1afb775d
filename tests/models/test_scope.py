"""The edges of a card's ranges: inside nothing is said, outside exactly one thing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from napari_txm_bgcorr.core import LazyTiles, Scan
from napari_txm_bgcorr.models.scope import ENERGY_MARGIN, LENGTH_MARGIN, LEVEL_MARGIN, fitness

PX = 64
FITS = {
    "binning": [1, 2],
    "pixel_nm": [20.0, 40.0],
    "level_counts": [1000, 2000],
    "energy_ev": [700.0, 700.0],
}
CARD: dict[str, Any] = {"network": {"field_px": PX}, "fits": FITS}


def scan(level: float = 1500, dtype: str = "u2", **facts: Any) -> Scan:
    made = Scan.from_array(np.full((5, PX, PX), level, dtype))
    return replace(made, **{"pixel_nm": 30.0, "binning": 2, "energy_ev": 700.0} | facts)


@pytest.mark.parametrize(
    ("fact", "low", "high", "margin"),
    [
        ("pixel_nm", 20.0, 40.0, LENGTH_MARGIN),
        ("energy_ev", 700.0, 700.0, ENERGY_MARGIN),
        ("level", 1000, 2000, LEVEL_MARGIN),
    ],
)
def test_ranges_hold_with_their_margin(fact: str, low: float, high: float, margin: float) -> None:
    def said(value: float) -> list[str]:
        return fitness(CARD, scan(**{fact: value}) if fact != "level" else scan(value, "f4"))

    assert said(low / margin * 1.001) == said(high * margin * 0.999) == []
    for outside in (low / margin * 0.99, high * margin * 1.01):
        (sentence,) = said(outside)
        assert f"{low:g}" in sentence and f"{high:g}" in sentence


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_is_unknown_is_not_outside(value: float | None) -> None:
    assert fitness(CARD, scan(pixel_nm=value, energy_ev=value, binning=None)) == []


def test_the_field_is_pixels_times_their_size() -> None:
    card = {"fits": {"field_um": [1.9, 2.0]}}
    assert fitness(card, scan(pixel_nm=30.0)) == []  # 64 x 30 nm
    (sentence,) = fitness(card, scan(pixel_nm=60.0))
    assert "field of 1.9 to 2 um, this scan has 3.84 um" in sentence


def test_few_tiles_are_read_first_middle_and_last() -> None:
    read: list[int] = []

    def tile(i: int) -> np.ndarray:
        read.append(i)
        return np.full((PX, PX), 1500, np.uint16)

    fitness(CARD, replace(scan(), tiles=LazyTiles((5, PX, PX), np.uint16, tile)))
    assert read == [0, 2, 4]


def test_one_odd_tile_does_not_decide_the_level() -> None:
    tiles = np.full((5, PX, PX), 1500, np.uint16)
    tiles[0] = 60_000
    assert fitness(CARD, replace(scan(), tiles=tiles)) == []


@pytest.mark.parametrize(
    ("level", "dtype", "told"),
    [
        (0.9, "f4", True),
        (0.0, "f4", True),
        (-0.2, "f8", True),
        (9.0, "u2", False),
        (900.0, "f4", False),
    ],
)
def test_divided_images_are_floats_about_one(level: float, dtype: str, told: bool) -> None:
    said = fitness({"fits": {}}, scan(level, dtype))
    assert any("divided already" in s for s in said) is told


@pytest.mark.parametrize(
    ("size", "words"),
    [((64, 76), None), ((64, 78), "squares|squeezed"), ((31, 31), "enlarged"), ((32, 32), None)],
)
def test_shapes_that_are_squeezed_or_enlarged_are_told(
    size: tuple[int, int], words: str | None
) -> None:
    made = replace(scan(pixel_nm=None), tiles=np.full((5, *size), 1500, np.uint16))
    said = fitness(CARD, made, "mine")
    assert len(said) == (0 if words is None else 1)
    if words is not None:
        assert said[0].startswith("mine: ") and any(w in said[0] for w in words.split("|"))


def test_a_card_that_claims_nothing_finds_nothing() -> None:
    assert fitness({}, scan(level=60_000, binning=8, energy_ev=1.0)) == []
