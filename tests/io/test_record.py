"""The record of an output is plain JSON, is found in any text, and gives the scan back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.record import KEY, find_block, make_block, restore, scan_record
from tests.io.output.outputs import PROVENANCE, make_scan


def bare(scan: Scan) -> Scan:
    """The pixels of a scan, as a format without any facts gives them."""
    return Scan.from_array(np.asarray(scan.tiles), name=str(scan.source.path))


def back(scan: Scan, role: str = "raw") -> Scan:
    block = make_block(role, PROVENANCE, scan_record(scan))
    text = json.dumps({KEY: block}, allow_nan=False)
    found = find_block([text])
    assert found is not None
    return restore(bare(scan), found)


def full() -> Scan:
    scan, nan = make_scan(), float("nan")
    return replace(
        scan,
        raster_index=np.array([0, 1, 2, 3, 4, 5]),
        energies_ev=np.array([700.5, nan, 1, 2, 3, 4]),
        exposures_s=np.array([1.0, 2, 3, 4, 5, nan]),
        monitor=np.array([nan, 0.0, -1, 2, 3, 4]),
        angles_deg=np.linspace(-30, 30, 6),
    )


@pytest.mark.parametrize("scan", [make_scan(), full(), bare(make_scan())])
def test_every_fact_comes_back(scan: Scan) -> None:
    found = back(scan)
    for name in ("kind", "names", "grid", "pixel_nm", "energy_ev", "exposure_s", "binning"):
        assert getattr(found, name) == getattr(scan, name), name
    for name in (
        "raster_index", "positions_px", "times", "angles_deg", "energies_ev", "exposures_s",
        "monitor",
    ):  # fmt: skip
        one, other = getattr(found, name), getattr(scan, name)
        assert (one is None) == (other is None), name
        if one is not None:
            np.testing.assert_array_equal(one, other, err_msg=name)
            assert one.dtype == other.dtype, name
    np.testing.assert_array_equal(found.tiles, scan.tiles)


@pytest.mark.parametrize(("role", "kept"), [("corrected", True), ("raw", False), ("mask", False)])
def test_only_what_is_corrected_says_so(role: str, kept: bool) -> None:
    assert (back(make_scan(), role).provenance == PROVENANCE) is kept
    assert (back(make_scan(), role).provenance is None) is not kept


def test_stitched_pictures_say_so_whatever_their_role() -> None:
    note = {"tiles": 6, "positions": "registered", "note": "12 of 12 pairs"}
    block = make_block("raw", PROVENANCE, scan_record(make_scan())) | {"stitched": note}
    found = restore(bare(make_scan()), block)
    assert found.provenance == PROVENANCE | {"stitched": note}
    assert "6 tiles stitched; positions registered: 12 of 12 pairs" in found.notes


def test_an_uncertainty_has_its_unit() -> None:
    assert "unit" in make_block("uncertainty", {}) and "unit" not in make_block("raw", {})
    assert "scan" not in make_block("raw", {})


def test_a_record_of_other_tiles_gives_the_common_facts_only() -> None:
    block = make_block("raw", {}, scan_record(make_scan()))
    one = Scan.from_array(np.asarray(make_scan().tiles[:2]))
    found = restore(one, block)
    assert found.names == one.names and found.grid is None and found.times is None
    assert (found.pixel_nm, found.binning) == (29.296875, 2)


def test_the_grid_that_the_user_gave_stays() -> None:
    scan = replace(bare(make_scan()), kind="mosaic", grid=(6, 1))
    found = restore(scan, make_block("raw", {}, scan_record(make_scan())))
    assert found.grid == (6, 1) and found.positions_px is None
    assert found.names == make_scan().names


@pytest.mark.parametrize(
    "damage",
    [
        {"grid": [1, 2, 3]},
        {"grid": [2, 2]},
        {"raster_index": [0, 1]},
        {"positions_px": [[0, 0]]},
        {"positions_px": "here"},
        {"times": ["yesterday"]},
        {"energies_ev": [1.0]},
        {"binning": "two"},
        {"pixel_nm": "small"},
    ],
)
def test_a_record_that_does_not_fit_is_one_error(damage: dict[str, Any]) -> None:
    block = make_block("raw", {}, scan_record(make_scan()) | damage)
    with pytest.raises(ReadError) as caught:
        restore(bare(make_scan()), block)
    assert "\n" not in str(caught.value) and str(Path("scan")) in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_size_that_is_no_number_is_unknown(value: float) -> None:
    block = make_block("raw", {}, scan_record(make_scan()) | {"pixel_nm": value})
    assert restore(bare(make_scan()), block).pixel_nm is None


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(
    facts=st.dictionaries(st.text(max_size=5), plain, max_size=3),
    before=st.text(max_size=20),
    after=st.text(max_size=20),
)
def test_a_record_is_found_within_any_text(facts: dict[str, Any], before: str, after: str) -> None:
    block = make_block("raw", facts)
    if '{"' + KEY in before:
        return
    text = before + json.dumps({KEY: block}) + after
    assert find_block(["nothing here", text, json.dumps({KEY: {"role": "late"}})]) == block


@pytest.mark.parametrize(
    "text",
    ["", '{"txm_bgcorr": ', '{"txm_bgcorr": 3}', '{"txm_bgcorr": {"role": 3}}',
     '{"txm_bgcorr": {}}', '{"txm_bgcorr"}', "txm_bgcorr"],
)  # fmt: skip
def test_what_is_no_record_is_passed_over(text: str) -> None:
    assert find_block([text]) is None
    good = {"role": "raw", "provenance": {}}
    assert find_block([text, json.dumps({KEY: good})]) == good
