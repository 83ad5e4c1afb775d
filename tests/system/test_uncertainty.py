"""`--save uncertainty`: what the drift model states, in every format and by any process."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from typer.testing import CliRunner

from napari_txm_bgcorr import io
from napari_txm_bgcorr.backgrounds.drift.model import DriftModel
from napari_txm_bgcorr.cli import app
from napari_txm_bgcorr.core.background_method import UNCERTAINTY_UNIT, StatesUncertainty
from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.io.output.patch import open_finished
from napari_txm_bgcorr.io.output.result import open_parts
from napari_txm_bgcorr.workflows.config import CorrectionConfig
from napari_txm_bgcorr.workflows.prepare import method_of, open_scan
from tests.workflows.runs import correct_paths

JOINT = CorrectionConfig(
    method="smooth", joint=True, save=("raw", "background", "corrected", "uncertainty")
)
WORDS = ["--method", "smooth", "--joint", "--save", "raw,background,corrected,uncertainty"]


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sim") / "m"
    given = ["simulate", "mosaic", "--grid", "3x3", "--size", "64", "--seed", "4", "-o", str(out)]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def stated(tiles: Path) -> np.ndarray:
    """What the fitted model says itself, (T, Y, X)."""
    scan = open_scan(tiles, JOINT)
    model = method_of(JOINT)
    assert isinstance(model, DriftModel)
    model.fit(scan)
    return np.stack([model.uncertainty(i) for i in range(len(scan))])


@pytest.fixture(scope="module")
def store(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("store") / "out.ome.zarr"
    correct_paths([tiles], out, JOINT)
    return out


def pixels(path: Path) -> np.ndarray:
    return np.asarray(io.read(path).tiles[:])


@pytest.mark.parametrize(
    ("form", "part"),
    [("omezarr", "uncertainty"), ("ometiff", "uncertainty.ome.tif"), ("tiff", "uncertainty")],
)
def test_every_format_keeps_what_the_model_states(
    tiles: Path, stated: np.ndarray, tmp_path: Path, form: str, part: str
) -> None:
    out = tmp_path / "out"
    words = ["correct", str(tiles), "-o", str(out), "--format", form, *WORDS]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    kept = pixels(out / part)
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(kept, stated)
    assert np.isfinite(kept).all() and (kept[:, 16:48, 16:48] > 0).all()
    closed = kept == 0  # behind the aperture, the same in every tile
    assert closed.mean() < 0.3 and (closed == closed[0]).all()


def test_the_records_name_the_unit(tiles: Path, store: Path, tmp_path: Path) -> None:
    group = zarr.open_group(store, mode="r")
    assert group.attrs["txm_bgcorr"]["units"] == {"uncertainty": UNCERTAINTY_UNIT}
    assert group["uncertainty"].attrs["txm_bgcorr"]["unit"] == UNCERTAINTY_UNIT
    assert "unit" not in group["background"].attrs["txm_bgcorr"]
    correct_paths([tiles], tmp_path / "t", JOINT.replaced(format="tiff"))
    record = json.loads((tmp_path / "t" / "provenance.json").read_text("utf-8"))["txm_bgcorr"]
    assert record["units"] == {"uncertainty": UNCERTAINTY_UNIT}
    file = next((tmp_path / "t" / "uncertainty").glob("*.tif"))
    with tifffile.TiffFile(file) as tif:
        assert UNCERTAINTY_UNIT in tif.imagej_metadata["Info"]


def test_a_result_with_it_is_read_as_any_other(store: Path, stated: np.ndarray) -> None:
    found = open_finished(store)
    assert found.uncertainty is not None
    np.testing.assert_array_equal(found.uncertainty[4], stated[4])
    assert set(open_parts(store).scans) == {"raw", "background", "corrected"}


def test_without_being_asked_it_is_not_saved(tiles: Path, tmp_path: Path) -> None:
    correct_paths([tiles], tmp_path / "o", JOINT.replaced(save=("background", "corrected")))
    assert not (tmp_path / "o" / "uncertainty").exists()
    assert open_finished(tmp_path / "o").uncertainty is None


def test_shares_write_the_bits_of_one_process(tiles: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for share in ("1/2", "2/2"):  # the second takes the fit over
        correct_paths([tiles], out, JOINT.replaced(shard=share))
    for part in ("uncertainty", "background"):
        np.testing.assert_array_equal(pixels(out / part), pixels(store / part))


@pytest.mark.timeout(300)  # a process starts
def test_workers_write_the_bits_of_one_process(tiles: Path, store: Path, tmp_path: Path) -> None:
    """While another program has the port that such a scheduler takes by itself."""
    pytest.importorskip("distributed")
    out = tmp_path / "out"
    with socket.socket() as other:
        with contextlib.suppress(OSError):  # it is taken already
            other.bind(("0.0.0.0", 8787))
            other.listen()
        correct_paths([tiles], out, JOINT.replaced(scheduler="local:1"))
    np.testing.assert_array_equal(pixels(out / "uncertainty"), pixels(store / "uncertainty"))


@pytest.mark.parametrize(
    ("method", "joint", "remedy"),
    [("smooth", None, "add --joint"), ("auto", False, "leave out --no-joint")],
)
def test_a_method_that_states_none_is_refused(
    method: str, joint: bool | None, remedy: str
) -> None:
    with pytest.raises(ConfigError, match=f"--method {method}.* states none; {remedy}"):
        CorrectionConfig(method=method, joint=joint, save=("corrected", "uncertainty"))


def test_nothing_is_written_when_it_is_refused(tiles: Path, tmp_path: Path) -> None:
    words = ["correct", str(tiles), "-o", str(tmp_path / "o"), "--method", "smooth"]
    done = CliRunner().invoke(app, [*words, "--save", "corrected,uncertainty"])
    assert done.exit_code != 0
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("method", "known"), [("auto", True), ("smooth", False)])
def test_redone_tiles_never_keep_an_old_uncertainty(
    tiles: Path, tmp_path: Path, stated: np.ndarray, method: str, known: bool
) -> None:
    out = tmp_path / "out.ome.zarr"
    correct_paths([tiles], out, JOINT)
    words = ["redo", str(out), "--tiles", "4", "--method", method]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    kept = pixels(out / "uncertainty")
    assert np.isfinite(kept[4]).all() if known else np.isnan(kept[4]).all()
    assert not np.array_equal(kept[4], stated[4])
    others = [i for i in range(9) if i != 4]
    np.testing.assert_array_equal(kept[others], stated[others])


def test_only_what_states_it_is_taken_for_that() -> None:
    assert isinstance(method_of(JOINT), StatesUncertainty)
    assert not isinstance(method_of(CorrectionConfig(method="smooth")), StatesUncertainty)
