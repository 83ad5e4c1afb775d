"""Lengths in any unit, names of frames, grids given by hand, and facts from names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_txm_bgcorr.core import Scan
from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.readers.acquisition_metadata import (
    frame_names,
    nanometres,
    with_grid,
    with_name_facts,
)
from napari_txm_bgcorr.io.readers.filename_metadata import (
    NameFacts,
    acquisition_numbers,
    is_dark,
    is_flat,
    name_facts,
)


@pytest.mark.parametrize(
    ("value", "unit", "nm"),
    [
        (29.3, "nm", 29.3),
        (0.0293, "\u00b5m", 29.3),  # micro sign
        (0.0293, "\u03bcm", 29.3),  # Greek mu
        (0.0293, "\\u00B5m", 29.3),  # as ImageJ writes it
        (0.0293, " Micron ", 29.3),
        (0.0293, "micrometre", 29.3),
        (2.93e-8, "m", 29.3),
        (293, "\u00c5", 29.3),
        (29300, "pm", 29.3),
        (2.93e-5, "mm", 29.3),
        (1, "inch", 2.54e7),
        (1, "pixel", None),
        (1, "", None),
        (0, "nm", None),
        (-3, "nm", None),
        (float("nan"), "nm", None),
        (float("inf"), "um", None),
    ],
)
def test_lengths_in_nanometres(value: float, unit: str, nm: float | None) -> None:
    got = nanometres(value, unit)
    assert got == (None if nm is None else pytest.approx(nm, rel=1e-11))


@given(st.floats(1e-3, 1e6))
def test_a_change_of_unit_leaves_no_rounding(nm: float) -> None:
    plain = float(f"{nm:.6g}")
    assert nanometres(plain / 1000, "um") == plain == nanometres(plain * 1e-9, "m")


@given(st.integers(1, 12_000))
def test_names_of_frames_are_unique_and_sort_in_their_order(count: int) -> None:
    names = frame_names(Path("deep") / "a.b.tif", count)
    assert len(set(names)) == count and list(names) == sorted(names)
    assert all(name.startswith("a.b") for name in names)
    assert (names == ("a.b",)) == (count == 1)


def scan(names: tuple[str, ...]) -> Scan:
    made = Scan.from_array(np.ones((len(names), 4, 6), np.uint16))
    return replace(made, names=names)


def numbered(*numbers: int) -> Scan:
    return scan(tuple(f"t_{n:03d}" for n in numbers))


def test_a_full_grid_is_laid_side_by_side_from_the_bottom_left() -> None:
    got = with_grid(numbered(1, 2, 3, 4, 5, 6), (2, 3))
    assert (got.kind, got.grid, got.raster_index) == ("mosaic", (2, 3), None)
    assert got.positions_px is not None
    np.testing.assert_array_equal(got.positions_px[0], [4, 0])
    np.testing.assert_array_equal(got.positions_px[5], [0, 12])
    assert any("side by side" in note for note in got.notes)


def test_no_grid_or_the_one_it_has_changes_nothing() -> None:
    one = numbered(1, 2, 3, 4)
    assert with_grid(one, None) is one
    done = with_grid(one, (2, 2))
    assert with_grid(done, (2, 2)) is done


@pytest.mark.parametrize("first", [0, 1])
def test_missing_numbers_leave_gaps(first: int) -> None:
    got = with_grid(numbered(first, first + 1, first + 3, first + 5), (2, 3))
    assert got.raster_index is not None and got.raster_index.tolist() == [0, 1, 3, 5]
    assert any("2 of the 6 tiles" in note for note in got.notes)


def test_the_first_tiles_of_a_grid_are_an_interrupted_mosaic() -> None:
    got = with_grid(numbered(1, 2, 3, 4), (2, 3))
    assert got.raster_index is None and got.grid == (2, 3)
    assert any("4 of the 6 tiles" in note and "interrupted" in note for note in got.notes)


@pytest.mark.parametrize(
    ("numbers", "grid"),
    [
        ((1, 2, 3), (1, 2)),
        ((1, 2, 3), (0, 9)),
        ((1, 2, 3), (3, -1)),
        ((1, 2), (2, 3)),
        ((1, 2, 9), (2, 2)),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(
    numbers: tuple[int, ...], grid: tuple[int, int]
) -> None:
    with pytest.raises(ReadError) as caught:
        with_grid(numbered(*numbers), grid)
    assert "\n" not in str(caught.value)


NAMED = NameFacts(binning=2, exposure_s=60.0, energy_ev=8353.0)


def test_names_tell_only_what_the_file_does_not() -> None:
    one = numbered(1)
    got = with_name_facts(one, NAMED)
    assert (got.binning, got.exposure_s, got.energy_ev, got.pixel_nm) == (2, 60, 8353, None)
    assert len(got.notes) == 3
    known = replace(one, binning=4, exposure_s=1.0, energy_ev=700.0)
    also = with_name_facts(known, NAMED)
    assert (also.binning, also.exposure_s, also.energy_ev, also.notes) == (4, 1, 700, ())


@pytest.mark.parametrize(
    ("binning", "width", "nm"),
    [(2, 512, 29.2969), (1, 1024, 14.6484), (4, 512, None), (None, 1024, None)],
)
def test_the_pixel_size_follows_from_the_whole_camera_only(
    binning: int | None, width: int, nm: float | None
) -> None:
    one = Scan.from_array(np.ones((1, 2, width), np.uint16))
    assert with_name_facts(one, NameFacts(binning=binning)).pixel_nm == nm
    given_already = replace(one, pixel_nm=5.0)
    assert with_name_facts(given_already, NameFacts(binning=binning)).pixel_nm == 5.0


# -- names --------------------------------------------------------------------------------------


@given(
    grid=st.tuples(st.integers(1, 99), st.integers(1, 99)),
    binning=st.sampled_from([1, 2, 4, 8]),
    exposure=st.integers(1, 999),
    energy=st.integers(100, 99_999),
    order=st.permutations(range(4)),
    edge=st.sampled_from("-_ "),
)
def test_tokens_are_found_in_any_order(
    grid: tuple[int, int], binning: int, exposure: int, energy: int, order: list[int], edge: str
) -> None:
    tokens = [f"m{grid[0]}x{grid[1]}", f"b{binning}", f"{exposure}s", f"{energy}eV"]
    name = edge.join(["Sb", *(tokens[k] for k in order)])
    assert name_facts(name) == NameFacts(grid, binning, float(exposure), float(energy))


@pytest.mark.parametrize("name", ["15x15um", "ab2c", "runs", "1024x1024", "b3", "0x4", "s60", ""])
def test_what_only_looks_like_a_token_is_none(name: str) -> None:
    assert name_facts(name) == NameFacts()


def test_the_first_name_that_tells_wins() -> None:
    assert name_facts("tile", "scan_b2-3x3", "all_b4-60s") == NameFacts((3, 3), 2, 60.0)


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["a_001", "a_002", "a_010"], [1, 2, 10]),
        (["b2_t7_60s", "b2_t9_60s"], [7, 9]),
        (["a1_1", "a2_2"], None),
        (["a_1", "b_2"], None),
        (["a_1"], None),
        (["a_1", "a_1"], None),
        (["a", "a"], None),
    ],
)
def test_running_numbers_are_the_one_thing_that_differs(
    names: list[str], numbers: list[int] | None
) -> None:
    assert acquisition_numbers(names) == numbers


@pytest.mark.parametrize(
    ("name", "flat", "dark"),
    [("ref_001", True, False), ("Reference", True, False), ("flatfield-2", True, False),
     ("white1", True, False), ("refined", False, False), ("flatten", False, False),
     ("dark_01", False, True), ("DarkFields", False, True), ("darkness", False, False),
     ("my_ref", False, False), ("", False, False)],
)  # fmt: skip
def test_references_and_darks_are_known_by_their_first_word(
    name: str, flat: bool, dark: bool
) -> None:
    assert (is_flat(name), is_dark(name)) == (flat, dark)
