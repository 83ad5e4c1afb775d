"""The tiles of a result, and how far each of their pixels is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_txm_bgcorr.core import Scan, optical_density
from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.output.result import TileParts, open_parts
from napari_txm_bgcorr.mosaic import FILLED, UNKNOWN, VALID
from tests.io.output.outputs import make_scan, result, write_all

SIZE = (32, 32)
DEAD, HOT, CORNER = (20, 9), (25, 25), (slice(0, 6), slice(26, 32))


def parts(**stacks: np.ndarray) -> TileParts:
    scans: Mapping[str, Scan] = {
        name: Scan.from_array(stack[None], name=name) for name, stack in stacks.items()
    }
    return TileParts(Path("result"), scans, {})


def planes() -> dict[str, np.ndarray]:
    """One tile: an unlit corner, a dead pixel and a saturated one, the rest good."""
    background = np.full(SIZE, 9000, np.float32)
    background[CORNER] = 50
    raw = np.full(SIZE, 6000, np.uint16)
    raw[CORNER], raw[DEAD], raw[HOT] = 50, 0, 65535
    corrected = np.full(SIZE, 6000 / 9000, np.float32)
    corrected[CORNER] = 1
    mask = np.ones(SIZE, np.uint8)
    mask[CORNER] = mask[DEAD] = mask[HOT] = 0
    return {"raw": raw, "background": background, "corrected": corrected, "mask": mask}


def wanted(*filled: tuple[int, int]) -> np.ndarray:
    status = np.full(SIZE, VALID, np.uint8)
    status[CORNER] = UNKNOWN
    for at in filled:
        status[at] = FILLED
    return status


@pytest.mark.parametrize("asked", [("corrected",), ("raw", "background", "corrected")])
@pytest.mark.parametrize(
    ("held", "filled"),
    [
        (("raw", "background", "corrected", "mask"), (DEAD, HOT)),
        (("corrected", "mask"), (DEAD, HOT)),
        (("raw", "background", "corrected"), (DEAD, HOT)),
        (("corrected", "background"), ()),
        (("corrected",), ()),
    ],
)
def test_trust_follows_from_whatever_parts_there_are(
    held: tuple[str, ...], filled: Any, asked: tuple[str, ...]
) -> None:
    given = {name: plane for name, plane in planes().items() if name in held}
    status, got = parts(**given).load(0, asked)
    np.testing.assert_array_equal(status, wanted(*filled))
    assert set(got) == set(asked) & set(held)
    for name, plane in got.items():
        np.testing.assert_array_equal(plane, given[name])


def test_values_of_exactly_one_in_the_middle_are_no_corner() -> None:
    corrected = np.full(SIZE, 0.5, np.float32)
    corrected[10:20, 10:20] = 1
    status, _ = parts(corrected=corrected).load(0, ("corrected",))
    assert (status == VALID).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["corrected", "background"])
def test_what_is_no_number_is_unknown_and_becomes_nought(part: str, value: float) -> None:
    given = planes()
    del given["mask"]
    given[part][15, 15] = value
    status, got = parts(**given).load(0, ("corrected", "background"))
    assert status[15, 15] == UNKNOWN and got[part][15, 15] == 0
    assert all(np.isfinite(plane).all() for plane in got.values())
    assert (status[:, :15] == wanted(DEAD)[:, :15]).all()


def test_density_is_of_the_corrected_part_alone() -> None:
    given = planes()
    _, plain = parts(**given).load(0, ("raw", "corrected"))
    _, dense = parts(**given).load(0, ("raw", "corrected"), "od")
    np.testing.assert_array_equal(dense["raw"], plain["raw"])
    np.testing.assert_allclose(dense["corrected"], optical_density(plain["corrected"]))
    assert dense["corrected"][16, 16] == pytest.approx(np.log(1.5), rel=1e-6)


@pytest.mark.parametrize("form", ["omezarr", "ometiff", "tiff"])
def test_a_result_is_opened_part_by_part(tmp_path: Path, form: str) -> None:
    scan = make_scan()
    out = write_all(tmp_path / "out", form, scan, save=("raw", "corrected", "mask"))
    got = open_parts(out)
    assert set(got.scans) == {"raw", "corrected", "mask"} and got.size == (20, 26)
    assert got.provenance["method"] == "smooth" and len(got.corrected) == 6
    for i in range(6):
        one = result(scan, i)
        status, planes_of = got.load(i, ("raw", "corrected"))
        np.testing.assert_array_equal(planes_of["corrected"], one.transmission)
        np.testing.assert_array_equal(planes_of["raw"], one.raw)
        np.testing.assert_array_equal(status == VALID, one.valid)


def test_what_is_no_result_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    raw_only = write_all(tmp_path / "raw", "tiff", make_scan(), save=("raw",))
    for place in (tmp_path / "empty", raw_only):
        with pytest.raises(ReadError, match="no corrected tiles in it"):
            open_parts(place)
    with pytest.raises(ReadError, match="no such file"):
        open_parts(tmp_path / "nowhere")


@pytest.mark.parametrize("masked", [True, False])
def test_what_is_no_number_in_the_corrected_part_is_unknown_whatever_is_asked(
    masked: bool,
) -> None:
    given = planes()
    if not masked:
        del given["mask"]
    given["corrected"][15, 15] = np.nan
    status, got = parts(**given).load(0, ("raw",))
    assert status[15, 15] == UNKNOWN and set(got) == {"raw"}
