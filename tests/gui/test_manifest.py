"""What napari is told about the plugin is true."""

from importlib import import_module
from pathlib import Path

import pytest
from npe2 import PluginManifest

from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.gui.common.preferences import Preferences, preferences
from napari_txm_bgcorr.gui.session import FORMATS
from napari_txm_bgcorr.io import WRITERS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def manifest():
    return PluginManifest.from_file(ROOT / "src" / "napari_txm_bgcorr" / "napari.yaml")


def test_manifest_at_the_top_is_the_packaged_one(manifest):
    assert (ROOT / "napari.yaml").resolve() == ROOT / "src" / "napari_txm_bgcorr" / "napari.yaml"
    assert manifest.name == "napari-txm-bgcorr"


def test_every_command_can_be_imported(manifest):
    for command in manifest.contributions.commands:
        module, _, name = command.python_name.partition(":")
        assert callable(getattr(import_module(module), name)), command.id


def test_panel_is_in_the_filter_menu(manifest):
    items = manifest.contributions.menus["napari/layers/filter"]
    assert "napari-txm-bgcorr.correct" in [item.command for item in items]


def test_panel_opens_from_menus_and_the_command_palette(make_napari_viewer, monkeypatch, qtbot):
    from napari._app_model import get_app_model

    from napari_txm_bgcorr.gui.correct import widget as correct_widget

    monkeypatch.setattr(correct_widget, "find_choices", lambda stop: iter([]))
    viewer = make_napari_viewer()
    app = get_app_model()
    assert "Background correction" in app.commands["napari-txm-bgcorr.correct"].title
    app.commands.execute_command("napari-txm-bgcorr.correct").result()
    (dock,) = [
        dock for name, dock in viewer.window._wrapped_dock_widgets.items() if "correction" in name
    ]
    panel = dock.inner_widget()
    qtbot.waitUntil(lambda: not (panel.finder.busy or panel.busy))
    panel.shut_down()


def test_plain_tiff_stays_naparis(manifest):
    (reader,) = manifest.contributions.readers
    assert not any("tif" in pattern for pattern in reader.filename_patterns)
    assert reader.accepts_directories


def test_preferences_match_the_manifest(manifest):
    properties = manifest.contributions.configurations["correction"].properties
    defaults = Preferences()
    assert set(properties) == set(vars(defaults))
    for name, entry in properties.items():
        assert entry.default == getattr(defaults, name)
    assert properties["save_format"].enum == list(FORMATS) == list(WRITERS)


def test_preferences_have_a_fallback(monkeypatch):
    import napari.settings

    assert preferences() == Preferences()
    monkeypatch.delattr(napari.settings, "get_plugin_settings", raising=False)
    assert preferences() == Preferences()


@pytest.mark.parametrize(("name", "ndim"), [("tile", 2), ("series", 3), ("mosaic", 2)])
def test_sample_data(name, ndim):
    sample_data = import_module("napari_txm_bgcorr.gui.sample_data")
    ((data, arguments, kind),) = getattr(sample_data, name)()
    assert kind == "image" and data.ndim == ndim
    assert arguments["metadata"]["txm_bgcorr"]["role"] == "raw"
    assert arguments["units"][-1] == "micrometer"


def test_reader_works_through_napari(make_napari_viewer, txm_data):
    viewer = make_napari_viewer()
    viewer.open(txm_data / "bl01b_sb_2x2", plugin="napari-txm-bgcorr")
    assert [layer.name for layer in viewer.layers] == ["bl01b_sb_2x2 raw"]
    viewer.open(txm_data / "xradia" / "test_chip00.xrm", plugin=None)
    assert viewer.layers[-1].data.shape == (512, 512)


def test_broken_file_opened_through_napari_raises_nothing(make_napari_viewer, tmp_path):
    bad = tmp_path / "bad.xrm"
    bad.write_bytes(b"")
    viewer = make_napari_viewer()
    try:
        viewer.open(bad, plugin=None)
    except ReadError as error:  # the clean line must not come as an exception
        raise AssertionError from error
    assert not viewer.layers


def test_stitched_picture_can_be_saved_by_napari_itself(make_napari_viewer, txm_data, tmp_path):
    import numpy as np
    import tifffile

    viewer = make_napari_viewer()
    (layer,) = viewer.open(txm_data / "bl01b_sb_2x2", plugin="napari-txm-bgcorr")
    layer.save(str(tmp_path / "picture.tif"))
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "picture.tif"), np.asarray(layer.data)
    )
