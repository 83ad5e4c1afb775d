"""Inputs and their outputs: what belongs together shares one, and nothing is told of a scan
that is not true of all of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_txm_bgcorr.core import Scan, Source
from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.workflows.inputs import refuse_file_name, side_by_side, split_jobs

START = np.datetime64("2026-01-01T00:00:00", "s")


def single(name: str, folder: str = "data", level: int = 1, **facts: Any) -> Scan:
    scan = Scan.from_array(np.full((4, 5), level, np.uint16), name=name)
    path = Path(folder) / f"{name}.xrm"
    return replace(scan, source=Source(path, "xradia", (path,)), **facts)


def test_single_images_share_one_output_in_their_order() -> None:
    scans = [single(n, level=k) for k, n in enumerate("cab")]
    ((together, out),) = split_jobs(scans, Path("out"), "omezarr")
    assert list(together) == scans and out == Path("out")
    whole = side_by_side(scans)
    assert whole.names == ("c", "a", "b") and whole.kind == "series"
    assert [int(whole.tiles[i].max()) for i in range(3)] == [0, 1, 2]
    assert whole.source.files == tuple(s.source.files[0] for s in scans)
    assert whole.source.path == Path("data").absolute()


@pytest.mark.parametrize(
    "other",
    [
        {"tiles": np.ones((1, 4, 6), np.uint16)},
        {"tiles": np.ones((1, 4, 5), np.float32)},
        {"pixel_nm": 29.0},
    ],
)
def test_images_that_differ_have_outputs_of_their_own(other: dict[str, Any]) -> None:
    scans = [single("a"), replace(single("b"), **other)]
    for form, suffix in (("omezarr", ".ome.zarr"), ("ometiff", ""), ("tiff", "")):
        jobs = split_jobs(scans, Path("out"), form)
        assert [out for _, out in jobs] == [Path("out") / f"a{suffix}", Path("out") / f"b{suffix}"]
        assert [list(one) for one, _ in jobs] == [[scans[0]], [scans[1]]]


def test_mosaics_are_never_put_side_by_side() -> None:
    tiles = np.ones((4, 4, 5), np.uint16)
    scans = [
        replace(Scan.from_array(tiles, grid=(2, 2)), source=Source(Path(n), "tiff")) for n in "ab"
    ]
    assert len(split_jobs(scans, Path("out"), "tiff")) == 2
    assert split_jobs(scans[:1], Path("out"), "omezarr") == [(scans[:1], Path("out"))]


@pytest.mark.parametrize("folders", [("one", "two"), ("one", "one")])
@pytest.mark.parametrize("pixel_nm", [None, 29.0])
def test_two_inputs_of_one_name_are_refused(
    folders: tuple[str, str], pixel_nm: float | None
) -> None:
    scans = [single("a", folders[0]), single("a", folders[1], pixel_nm=pixel_nm)]
    with pytest.raises(WriteError, match="several inputs are called a"):
        split_jobs(scans, Path("out"), "tiff")


def test_folders_are_called_by_their_whole_name(tmp_path: Path) -> None:
    """A date in a folder's name is no suffix."""
    scans = []
    for name in ("scan.01", "scan.02"):
        (tmp_path / name).mkdir()
        scan = Scan.from_array(np.ones((4, 4, 5), np.uint16), grid=(2, 2))
        scans.append(replace(scan, source=Source(tmp_path / name, "tiff")))
    outs = [out.name for _, out in split_jobs(scans, Path("out"), "omezarr")]
    assert outs == ["scan.01.ome.zarr", "scan.02.ome.zarr"]


def test_facts_that_all_share_are_those_of_the_whole_and_others_of_each() -> None:
    scans = [
        single("a", energy_ev=700.0, exposure_s=1.0, pixel_nm=29.0, times=np.array([START])),
        single("b", energy_ev=700.0, exposure_s=2.0, pixel_nm=29.0, times=np.array([START + 5])),
    ]
    whole = side_by_side(scans)
    assert (whole.energy_ev, whole.energies_ev, whole.pixel_nm) == (700.0, None, 29.0)
    assert whole.exposure_s is None
    np.testing.assert_array_equal(whole.exposures_s, [1.0, 2.0])
    assert whole.times is not None and (np.diff(whole.times).astype(int) == 5).all()
    partly = side_by_side([scans[0], single("b", exposure_s=2.0)])
    assert partly.energy_ev is None and partly.times is None
    np.testing.assert_array_equal(partly.energies_ev, [700.0, np.nan])
    nothing = side_by_side([single("a"), single("b")])
    assert (nothing.energies_ev, nothing.exposures_s, nothing.monitor) == (None, None, None)


def test_references_are_named_once_each() -> None:
    shared, own = np.ones((2, 4, 5), np.uint16), np.zeros((1, 4, 5), np.uint16)
    scans = [single("a", flats=shared), single("b", flats=shared), single("c", flats=own)]
    whole = side_by_side(scans)
    assert whole.flats is not None and whole.flats.shape == (3, 4, 5) and whole.darks is None
    assert [int(whole.flats[i].max()) for i in range(3)] == [1, 1, 0]


@pytest.mark.parametrize("name", ["out.tif", "out.TIFF", "a/b.xrm", "x.txm", "y.h5"])
def test_an_output_is_no_image_file(name: str) -> None:
    with pytest.raises(WriteError, match="the output is a folder; give a name without"):
        refuse_file_name(Path(name))


@pytest.mark.parametrize("name", ["out", "out.ome.zarr", "day.2", "out.zarr", ".tif.d"])
def test_other_names_are_taken(name: str) -> None:
    refuse_file_name(Path(name))
