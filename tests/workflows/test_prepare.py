"""References and darks of the user take the place of the scan's own, read once for many paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_txm_bgcorr import io
from napari_txm_bgcorr.core import Scan
from napari_txm_bgcorr.errors import AlreadyCorrectedError, MethodError, ReadError
from napari_txm_bgcorr.workflows.config import CorrectionConfig
from napari_txm_bgcorr.workflows.prepare import (
    Shared,
    attach,
    method_of,
    model_notes,
    open_scan,
    with_references,
)

SIZE = (12, 14)


def written(path: Path, level: int, size: tuple[int, int] = SIZE) -> Path:
    tifffile.imwrite(path, np.full(size, level, np.uint16))
    return path


def scan(size: tuple[int, int] = SIZE, **facts: Any) -> Scan:
    own = np.full((1, *size), 7, np.uint16)
    return Scan.from_array(np.full((2, *size), 500, np.uint16), flats=own, darks=own, **facts)


def config(**changes: Any) -> CorrectionConfig:
    return CorrectionConfig(inputs=(Path("x"),), output=Path("o"), **changes)


def levels(stack: Any) -> list[int]:
    return [] if stack is None else [int(stack[i].max()) for i in range(stack.shape[0])]


def test_without_any_given_the_scan_keeps_its_own() -> None:
    got = attach(scan(), config())
    assert levels(got.flats) == [7] and levels(got.darks) == [7]
    assert got.darks_combined == "median"


def test_those_given_replace_each_its_own_kind_only(tmp_path: Path) -> None:
    flat, dark = written(tmp_path / "f.tif", 900), written(tmp_path / "d.tif", 90)
    for choice, wanted in [
        ({"references": (flat, flat)}, ([900, 900], [7])),
        ({"darks": (dark,)}, ([7], [90])),
        ({"references": (flat,), "darks": (dark, dark)}, ([900], [90, 90])),
    ]:
        got = attach(scan(), config(**choice))
        assert (levels(got.flats), levels(got.darks)) == wanted
        also = with_references(scan(), choice.get("references", ()), choice.get("darks", ()))
        assert (levels(also.flats), levels(also.darks)) == wanted
    assert with_references(scan()).flats is not None


def test_for_many_paths_they_are_read_once_for_each_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat, dark = written(tmp_path / "f.tif", 900), written(tmp_path / "d.tif", 90)
    chosen, shared, calls = config(references=(flat,), darks=(dark,)), Shared(), []
    real = io.read_references

    def read_references(*args: Any, **keys: Any) -> Any:
        calls.append(keys.get("role", "flats"))
        return real(*args, **keys)

    monkeypatch.setattr(io, "read_references", read_references)
    for _ in range(3):
        got = attach(scan(), chosen, shared)
        assert (levels(got.flats), levels(got.darks)) == ([900], [90])
    assert calls == ["flats", "darks"] and list(shared) == [SIZE]
    attach(scan(), chosen)
    assert calls == ["flats", "darks"] * 2


def test_references_of_another_size_are_refused(tmp_path: Path) -> None:
    flat = written(tmp_path / "f.tif", 900, (5, 5))
    with pytest.raises(ReadError, match=r"f\.tif|size|px"):
        attach(scan(), config(references=(flat,)))


def test_a_path_is_opened_with_what_the_user_says_of_it(tmp_path: Path) -> None:
    for k in range(4):
        written(tmp_path / f"t_{k}.tif", 500 + k)
    dark = written(tmp_path.parent / "dark_all.tif", 3)
    got = open_scan(tmp_path, config(grid=(2, 2), pixel_nm=29.5, darks=(dark,)))
    assert (got.grid, got.pixel_nm, levels(got.darks)) == ((2, 2), 29.5, [3])
    assert levels(got.tiles) == [500, 501, 502, 503]


def test_a_corrected_result_is_refused_before_anything_is_read() -> None:
    done = scan(provenance={"method": "smooth"})
    missing = (Path("nowhere.tif"),)
    with pytest.raises(AlreadyCorrectedError):
        attach(done, config(references=missing))
    assert levels(attach(done, config(force=True)).flats) == [7]


def test_the_mean_of_darks_goes_with_the_mean_of_references() -> None:
    for combine, wanted in (("mean", "mean"), ("median", "median"), (None, "median")):
        method = {"method": "captured"} if combine else {}
        assert attach(scan(), config(combine=combine, **method)).darks_combined == wanted


@pytest.mark.parametrize("name", ["smooth", "captured", "tile-median", "eigen-flats"])
def test_the_method_is_the_one_that_was_named(name: str) -> None:
    assert method_of(config(method=name, joint=False)).name == name
    assert model_notes([scan()], config(method=name)) == []


def test_options_reach_the_method() -> None:
    made: Any = method_of(config(method="captured", combine="levelled-mean", joint=False))
    assert made.combine == "levelled-mean"
    with pytest.raises(MethodError, match="dreams"):
        method_of(config(method="dreams"))
