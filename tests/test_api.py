"""The names that a notebook uses: arrays, paths and scans give the bits of the command."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import napari_txm_bgcorr as txm
from napari_txm_bgcorr.core import LazyTiles
from napari_txm_bgcorr.errors import (
    AlreadyCorrectedError,
    ConfigError,
    MethodError,
    ReadError,
    TxmError,
    WriteError,
)
from napari_txm_bgcorr.simulation import simulate_mosaic, simulate_series
from napari_txm_bgcorr.workflows import CorrectionConfig, load_config
from napari_txm_bgcorr.workflows.correction import correct

SIZE = 64

PUBLIC = {
    "CorrectionResult": "(corrected: 'CorrectedScan', flat: 'bool' = False) -> 'None'",
    "correct": (
        "(images: 'Images | Scan', *, references: 'Images' = None, darks: 'Images' = None, "
        "method: 'str' = 'auto', model: 'Place' = 'default', device: 'str' = 'auto', "
        "grid: 'tuple[int, int] | None' = None, pixel_nm: 'float | None' = None, "
        "joint: 'bool | None' = None, combine: 'str | None' = None, i0: 'float | None' = None, "
        "force: 'bool' = False, progress: 'bool' = False) -> 'CorrectionResult'"
    ),
    "list_methods": "() -> 'list[str]'",
    "list_models": "() -> 'list[str]'",
    "measure_quality": (
        "(corrected: 'Place | CorrectionResult', *, progress: 'bool' = False) -> 'dict[str, Any]'"
    ),
    "read": (
        "(path: 'Place', *, grid: 'tuple[int, int] | None' = None, "
        "pixel_nm: 'float | None' = None) -> 'Scan'"
    ),
    "stitch": (
        "(corrected: 'Place | CorrectionResult', path: 'Place', *, "
        "parts: 'Sequence[str]' = ('corrected',), domain: 'str' = 'transmission', "
        "format: 'str' = 'omezarr', overwrite: 'bool' = False) -> 'Path'"
    ),
    "train": (
        "(run: 'Place', *, references: 'Images' = None, "
        "samples: 'Sequence[Place] | Place | None' = None, "
        "pairs: 'Sequence[Place] | None' = None, darks: 'Images' = None, "
        "preset: 'Place' = 'fine-tune', minutes: 'float | None' = None, "
        "settings: 'Mapping[str, Any] | None' = None, device: 'str' = 'auto', "
        "resume: 'bool' = False, on_step: 'Callable[[TrainStep], None] | None' = None) -> 'Path'"
    ),
}
RESULT = {
    "background", "mask", "method", "optical_density", "provenance", "save", "stitch",
    "transmission", "uncertainty",
}  # fmt: skip


@pytest.fixture(scope="module")
def series() -> np.ndarray:
    """Six projections in counts."""
    return np.asarray(simulate_series(6, size=SIZE, seed=3).scan.tiles[:])


@pytest.fixture(scope="module")
def mosaic() -> txm.Scan:
    """Three by three overlapping tiles."""
    return simulate_mosaic(3, 3, size=SIZE, seed=1).scan


def test_the_public_names_and_signatures() -> None:
    """Whoever changes one breaks notebooks: say so in the changelog."""
    assert set(txm.__all__) == {*PUBLIC, "Scan", "TxmError", "__version__"}
    assert {name: str(inspect.signature(getattr(txm, name))) for name in PUBLIC} == PUBLIC
    assert {n for n in vars(txm.CorrectionResult) if not n.startswith("_")} == RESULT


def test_the_import_is_light_and_complete() -> None:
    code = (
        "import sys, napari_txm_bgcorr as txm\n"
        "heavy = {'torch', 'monai', 'qtpy', 'napari', 'numpy', 'zarr', 'h5py'}\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & heavy), txm.Scan.__name__)\n"
        "txm.correct; txm.list_methods()\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'qtpy', 'napari'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[] Scan", "[]"]


def test_one_image_in_one_image_out(series: np.ndarray) -> None:
    flats = series[1:4]
    dark = np.full((SIZE, SIZE), 100, np.uint16)
    result = txm.correct(series[0], references=flats, darks=dark, method="captured")
    wanted = (series[0].astype(np.float32) - 100) / (flats.mean(0, dtype=np.float32) - 100)
    assert result.transmission.shape == (SIZE, SIZE) == result.background.shape
    np.testing.assert_allclose(result.transmission[result.mask], wanted[result.mask], rtol=2e-3)
    np.testing.assert_array_equal(
        result.optical_density, -np.log(np.maximum(result.transmission, 1e-3))
    )
    assert result.uncertainty is None and result.method == "captured" and len(result) == 1
    assert "single" in repr(result)


@pytest.mark.parametrize("kind", ["numpy", "list", "dask", "scan", "path", "paths"])
def test_every_way_to_give_images_gives_the_same_bits(
    series: np.ndarray, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: object = series
    if kind == "list":
        given = list(series)
    elif kind == "dask":
        array = pytest.importorskip("dask.array")
        monkeypatch.setitem(pytest.importorskip("dask").config.config, "scheduler", "synchronous")
        given = array.from_array(series, chunks=(1, SIZE, SIZE))
    elif kind == "scan":
        given = txm.Scan.from_array(series)
    elif kind == "path":
        tifffile.imwrite(tmp_path / "s.tif", series)
        given = tmp_path / "s.tif"
    elif kind == "paths":
        for k, image in enumerate(series):
            tifffile.imwrite(tmp_path / f"{k}.tif", image)
        given = [str(tmp_path / f"{k}.tif") for k in range(len(series))]
    result = txm.correct(given, method="smooth")
    whole = txm.correct(series, method="smooth")
    np.testing.assert_array_equal(result.transmission, whole.transmission)
    np.testing.assert_array_equal(result.background, whole.background)
    assert result.transmission.dtype == np.float32 and result.mask.dtype == bool


def test_a_result_is_that_of_the_command_and_says_how_it_was_made(
    series: np.ndarray, tmp_path: Path
) -> None:
    place = tmp_path / "s.tif"
    tifffile.imwrite(place, series)
    result = txm.correct(place, method="tile-median", joint=True)
    saved = result.save(tmp_path / "api.ome.zarr")
    config = CorrectionConfig(
        inputs=(place,), output=tmp_path / "cli.ome.zarr", method="tile-median", joint=True
    )
    correct(config)
    ours, theirs = (
        {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("c/*/*/*")}
        for out in (saved, tmp_path / "cli.ome.zarr")
    )
    assert ours == theirs != {}
    assert result.uncertainty.shape == series.shape
    block = json.loads((saved / "zarr.json").read_text())["attributes"]["txm_bgcorr"]
    made = block["provenance"]
    assert made["config"]["inputs"] == [str(place)] and made["config"]["joint"] is True
    assert made["command"] == (
        f"txm-bgcorr correct {place} --output {saved} --method tile-median --save "
        "raw,background,corrected --joint"
    )


def test_a_mosaic_is_stitched_and_judged(mosaic: txm.Scan, tmp_path: Path) -> None:
    result = txm.correct(mosaic, method="smooth", joint=True)
    out = result.stitch(tmp_path / "picture.ome.zarr")
    assert (out / "zarr.json").is_file()
    report = txm.measure_quality(result)
    assert len(report["tiles"]) == 9 and set(report["flagged"]) <= set(range(9))
    json.dumps(report, allow_nan=False)
    saved = result.save(tmp_path / "saved")
    assert txm.stitch(saved, tmp_path / "again.ome.zarr").is_dir()
    again = txm.measure_quality(saved)
    assert again["flagged"] == report["flagged"]
    assert [t["novelty"] for t in again["tiles"]] == [t["novelty"] for t in report["tiles"]]
    with pytest.raises(AlreadyCorrectedError, match="already corrected"):
        txm.correct(saved / "corrected")
    with pytest.raises(ConfigError, match="single scan is no mosaic"):
        txm.correct(mosaic.tiles[0], method="smooth").stitch(tmp_path / "no.ome.zarr")


def test_large_scans_stay_lazy(series: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_txm_bgcorr.workflows.correction_result.IN_MEMORY", series.nbytes)
    lazy = txm.correct(series, method="smooth")
    whole = txm.correct(series[:1], method="smooth")
    assert isinstance(lazy.transmission, LazyTiles)
    assert isinstance(lazy.optical_density, LazyTiles)
    np.testing.assert_array_equal(lazy.transmission[0], whole.transmission[0])
    np.testing.assert_array_equal(lazy.optical_density[0], whole.optical_density[0])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: txm.correct(s[0, 0]), ReadError, "images: shape"),
        (lambda s: txm.correct(s > 3), ReadError, "images: pixels of type bool"),
        (lambda s: txm.correct(s, references=s[:, :8]), ReadError, "references: 8 x 64 px"),
        (lambda s: txm.correct(s, references="nowhere.tif"), ReadError, "nowhere.tif"),
        (lambda s: txm.correct(s, references=[s[0], "a.tif"]), ConfigError, "either"),
        (lambda s: txm.correct([s[0], s[1, :8]]), ReadError, "images: images of different sizes"),
        (lambda s: txm.correct(s, darks=s.astype(str)), ReadError, "darks: pixels"),
        (lambda s: txm.correct(s, method="best"), MethodError, "best"),
        (lambda s: txm.correct(s, method="captured"), MethodError, "references"),
        (lambda s: txm.correct(s, grid=(2, 2)), ReadError, r"grid \(2, 2\)"),
        (lambda s: txm.correct("nowhere.xrm"), ReadError, "nowhere.xrm"),
        (lambda s: txm.correct(s, method="smooth").save("x", parts=["od"]), ConfigError, "od"),
        (lambda s: txm.measure_quality("nowhere"), ReadError, "nowhere"),
        (lambda s: txm.read(None), ConfigError, "path None"),
        (lambda s: txm.read("x.tif", pixel_nm="a"), ConfigError, "pixel_nm 'a'"),
        (lambda s: txm.correct(""), ConfigError, "images ''"),
        (lambda s: txm.correct([]), ConfigError, "images"),
        (lambda s: txm.correct(s, grid=(-2, -3)), ConfigError, "grid"),
        (lambda s: txm.correct(s, pixel_nm=0), ConfigError, "pixel_nm '0'"),
        (lambda s: txm.correct(txm.Scan.from_array(s), grid=(2, 3)), ConfigError, "grid: a scan"),
        (lambda s: txm.correct(np.ma.masked_less(s, 9)), ReadError, "images: a masked array"),
        (lambda s: txm.Scan.from_array(s, foo=3), ReadError, "foo: a scan has no such"),
        (lambda s: txm.Scan.from_array(s, times=["x"]), ReadError, "times"),
        (lambda s: txm.correct(s, method="smooth").save(None), ConfigError, "path None"),
        (lambda s: txm.stitch(None, "x"), ConfigError, "corrected None"),
        (lambda s: txm.train("run", references=s * np.nan), ReadError, "references: not one"),
        (lambda s: txm.train("r", references=s, darks=s[:, :9]), ReadError, "darks: 9 x 64 px"),
        (lambda s: txm.train("r", references=s, settings=["a"]), ConfigError, "settings"),
        (lambda s: txm.train("run", references=s, preset="none"), ConfigError, "none"),
    ],
)
def test_a_wrong_argument_is_named(
    series: np.ndarray, call: object, error: type[TxmError], words: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        call(series)  # type: ignore[operator]
    assert list(tmp_path.iterdir()) == []


def test_a_taken_place_is_refused(series: np.ndarray, tmp_path: Path) -> None:
    result = txm.correct(series, method="smooth")
    result.save(tmp_path / "out")
    with pytest.raises(WriteError, match="out"):
        txm.correct(series[:2], method="smooth").save(tmp_path / "out")


def test_a_result_of_memory_is_not_repeated_from_its_record(
    series: np.ndarray, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "s.tif", series)
    given = {
        "array": txm.correct(series, method="smooth"),
        "references": txm.correct(tmp_path / "s.tif", references=series, method="smooth"),
        "scan": txm.correct(txm.read(tmp_path / "s.tif"), method="smooth"),
    }
    for name, result in given.items():
        with pytest.raises(ReadError, match="cannot be repeated"):
            load_config(result.save(tmp_path / name))


def test_a_result_of_some_files_repeats_these(series: np.ndarray, tmp_path: Path) -> None:
    for k, image in enumerate(series):
        tifffile.imwrite(tmp_path / f"{k}.tif", image)
    paths = [tmp_path / "1.tif", tmp_path / "3.tif"]
    out = txm.correct(paths, method="smooth").save(tmp_path / "out")
    assert list(load_config(out).inputs) == paths
    correct(load_config(out).replaced(output=tmp_path / "again"))
    ours, theirs = (
        {str(p.relative_to(o)): p.read_bytes() for p in o.rglob("c/*/*/*")}
        for o in (out, tmp_path / "again")
    )
    assert ours == theirs != {}


def test_names_are_listed() -> None:
    assert txm.list_methods()[0] == "auto" and "default" in txm.list_models()


def test_training_from_arrays(series: np.ndarray, tmp_path: Path) -> None:
    small = {
        "steps": 2, "minutes": None, "batch": 2, "validate_every": 2, "log_every": 1,
        "data.sessions_per_batch": 1, "data.pool_sessions": 1, "data.pool_specimens": 4,
        "data.validation_sessions": 1, "data.simulate_px": 64,
    }  # fmt: skip
    steps: list[int] = []
    model = txm.train(
        tmp_path / "run", references=series, settings=small, device="cpu",
        on_step=lambda step: steps.append(step.step),
    )  # fmt: skip
    assert steps[-1] == 2 and model.is_file()
    done = txm.correct(series[0], model=str(model), method="generator", device="cpu")
    assert np.isfinite(done.transmission).all()
