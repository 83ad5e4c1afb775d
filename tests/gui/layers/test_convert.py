"""Scans and results as layers, and back; what napari's reader hook claims."""

import numpy as np
import pytest
from napari.layers import Image, Labels, Layer

from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.gui.hooks import get_reader, read_layers
from napari_txm_bgcorr.gui.layers import canvas
from napari_txm_bgcorr.gui.layers.convert import (
    contrast_limits,
    describe_scan,
    input_info,
    owner_of,
    placement,
    result_layers,
    scan_layer,
)
from napari_txm_bgcorr.gui.layers.result import Result
from tests.gui.helpers import make_scan


def as_layer(scan):
    return Layer.create(*scan_layer(scan)[0])


@pytest.mark.parametrize(
    ("kind", "shape", "axes"),
    [
        ("single", (32, 32), ("y", "x")),
        ("series", (5, 32, 32), ("projection", "y", "x")),
        ("mosaic", (56, 56), ("y", "x")),
    ],
)
def test_scan_becomes_a_layer_in_micrometres(kind, shape, axes):
    scan = make_scan(kind)
    layer = as_layer(scan)
    assert layer.data.shape == shape and layer.axis_labels == axes
    assert layer.name == "sample raw"
    assert [str(unit) for unit in layer.units[-2:]] == ["micrometer", "micrometer"]
    np.testing.assert_allclose(layer.scale[-2:], 0.0293)
    notes = layer.metadata["txm_bgcorr"]
    assert notes["role"] == "raw" and notes["provenance"] is None
    assert notes["facts"] == scan.facts()
    assert notes["source"] == {"path": "/nowhere/sample.tif", "format": "test"}
    assert input_info(layer).scan is scan


def test_unknown_pixel_size_is_shown_in_pixels():
    layer = as_layer(make_scan("single", pixel_nm=None))
    assert [str(unit) for unit in layer.units] == ["pixel", "pixel"]
    assert layer.scale.tolist() == [1, 1]


def test_own_output_is_shown_as_corrected_and_refused_as_input():
    layer = as_layer(make_scan("single", provenance={"method": "smooth"}))
    assert layer.name == "sample corrected"
    assert layer.contrast_limits == [0, 1.2]
    assert input_info(layer).role == "corrected"


def test_large_mosaic_is_multiscale_and_its_overview_waits(monkeypatch):
    monkeypatch.setattr(canvas, "MULTISCALE_ABOVE_PX", 48)
    monkeypatch.setattr(canvas, "COARSEST_PX", 10)
    scan = make_scan(grid=(3, 3))
    (data, arguments, kind), pyramid = scan_layer(scan)
    assert arguments["multiscale"] and kind == "image" and not data[-1].any()
    for _ in pyramid.fill():
        pass
    layer = Layer.create(data, arguments, kind)
    assert layer.multiscale and owner_of(layer) is scan
    shapes = [level.shape for level in layer.data]
    assert shapes[0] == (80, 80) and shapes == sorted(shapes, reverse=True)


def test_results_lie_on_the_raw_layer():
    scan = make_scan()
    raw = as_layer(scan)
    raw.translate = (5, 7)
    result = Result(scan, "sample")
    background, corrected = (
        Layer.create(*each) for each in result_layers(result, placement(raw), raw.contrast_limits)
    )
    for layer in (background, corrected):
        np.testing.assert_array_equal(layer.scale, raw.scale)
        np.testing.assert_array_equal(layer.translate, (5, 7))
        assert layer.units == raw.units and layer.data.shape == raw.data.shape
        assert owner_of(layer) is result
    assert background.contrast_limits == raw.contrast_limits
    assert corrected.contrast_limits == [0, 1.2]
    assert (background.name, corrected.name) == ("sample background", "sample corrected")


@pytest.mark.parametrize(
    ("shape", "kind", "count"), [((9, 8), "single", 1), ((3, 9, 8), "series", 3)]
)
def test_plain_layers_become_scans(shape, kind, count):
    data = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    layer = Image(data, name="plain", scale=(0.05,) * len(shape), units=("um",) * len(shape))
    info = input_info(layer)
    assert info.role is None and info.scan.kind == kind and len(info.scan) == count
    assert info.scan.pixel_nm == pytest.approx(50)
    np.testing.assert_array_equal(info.scan.tiles[:].reshape(shape), data)


def test_layers_without_counts_hold_no_scan():
    assert input_info(Labels(np.zeros((4, 4), int))).kind == "labels"
    photo = input_info(Image(np.zeros((40, 40, 3), np.uint8), rgb=True))
    assert photo.rgb and photo.scan is None
    assert input_info(Image(np.zeros((2, 3, 4, 5)))).scan is None


def test_contrast_ignores_hot_and_dead_pixels():
    tiles = np.random.default_rng(0).integers(1000, 1200, (3, 64, 64), np.uint16)
    tiles[0, 0, 0], tiles[1, 4, 4] = 65535, 0
    low, high = contrast_limits(tiles)
    assert 1000 <= low < 1010 and 1190 < high < 1200
    low, high = contrast_limits(np.zeros((1, 8, 8)))
    assert high > low


def test_facts_are_told_in_one_line():
    text = describe_scan(make_scan(energy_ev=9000.0, exposure_s=60.0))
    assert text == "mosaic of 2 x 2 tiles, 32 x 32 px, 29.3 nm/px, 9 keV, 60 s, no reference"


# -- the reader hook ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.xrm", "b.TXRM", "c.txm"])
def test_hook_claims_xradia_files(tmp_path, name):
    assert get_reader(str(tmp_path / name)) is read_layers


@pytest.mark.parametrize("name", ["a.tif", "b.h5", "c.png", "d.xrm.txt"])
def test_hook_leaves_other_files_to_napari(tmp_path, name):
    assert get_reader(str(tmp_path / name)) is None


def test_hook_claims_folders_that_hold_tiles_only(tmp_path):
    assert get_reader(str(tmp_path)) is None
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "some.zarr").mkdir()
    assert get_reader(str(tmp_path)) is None
    assert get_reader(str(tmp_path / "some.zarr")) is None
    (tmp_path / "tile_0001.tif").write_bytes(b"")
    assert get_reader(str(tmp_path)) is read_layers
    assert get_reader([str(tmp_path), str(tmp_path / "a.xrm")]) is read_layers


def test_bad_file_gives_one_notification_and_no_layer(tmp_path):
    from napari.utils.notifications import notification_manager

    bad = tmp_path / "bad.xrm"
    bad.write_bytes(b"not OLE")
    before = len(notification_manager.records)
    assert read_layers(str(bad)) == [(None,)]
    (record,) = notification_manager.records[before:]
    assert "bad.xrm" in record.message and "\n" not in record.message
    assert not hasattr(record, "exception")


def test_real_mosaic_is_laid_out_on_its_grid(txm_data):
    ((data, arguments, _),) = read_layers(str(txm_data / "bl01b_sb_2x2"))
    scan = data.owner
    assert isinstance(scan, Scan) and data.shape == (921, 921)
    # The tile taken first lies bottom left, and is not covered by later ones in its corner.
    np.testing.assert_array_equal(data[-409:, :409], scan.tiles[0][-409:, :409])
    assert arguments["units"] == ("micrometer", "micrometer")


def test_real_series_is_a_stack(txm_data):
    ((data, _, _),) = read_layers(str(txm_data / "xradia" / "txrm_test_chip_tomo.txrm"))
    assert data.shape == (7, 256, 256)


def test_scan_that_contradicts_itself_is_an_error_in_words():
    with pytest.raises(ReadError, match="names"):
        Scan(np.zeros((2, 3, 3)), "series", make_scan().source, ("one",))
