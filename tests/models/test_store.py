import json
import shutil

import pytest
import torch

from napari_txm_bgcorr.errors import ModelError, WriteError
from napari_txm_bgcorr.models.checkpoint import load_model, save_model, shipped_folder
from napari_txm_bgcorr.models.networks import build_generator
from napari_txm_bgcorr.models.store import (
    copy_model,
    find_model,
    import_model,
    model_rows,
    remove_model,
    rename_model,
    unused_name,
)
from napari_txm_bgcorr.training.config import NetworkConfig

TINY = NetworkConfig(field_px=16, features=(4, 4))
SHIPPED = sorted(file.stem for file in shipped_folder().glob("*.safetensors"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(2)
    save_model(
        folder / "made.safetensors",
        build_generator(TINY),
        TINY,
        training={"init": "/data/secret/place/coarse", "data": {"kind": "simulated"}},
        metrics={"validation_error_sf": {"none": 0.05, "mean": 0.04}},
        notes="trained in /data/secret/place on 3 W/kg",
        facts={"instrument": "BL01B", "fits": {"binning": [2]}, "limits": ["one beamline"]},
    )
    return folder / "made.safetensors"


@pytest.fixture
def own(tmp_path, monkeypatch):
    folder = tmp_path / "own"
    monkeypatch.setenv("TXM_BGCORR_MODELS", str(folder))
    return folder


def test_a_card_says_what_the_model_is_for_and_no_place(made):
    text = made.with_suffix(".json").read_text()
    card = json.loads(text)
    assert "secret" not in text and card["training"]["init"] == "coarse"
    assert card["notes"] == "trained in place on 3 W/kg"
    assert card["instrument"] == "BL01B" and card["limits"] == ["one beamline"]
    assert card["fits"]["binning"] == [2] and card["fits"]["field_um"] == [15.0, 15.0]
    assert card["licence"] and card["intended_use"] and card["data"]["kinds"] == ["simulated"]


def test_shipped_models_come_first_and_stay(own):
    rows = model_rows()
    assert [row.name for row in rows if row.shipped] == SHIPPED
    for name in SHIPPED:
        for refused in (lambda n=name: remove_model(n), lambda n=name: rename_model(n, "mine")):
            with pytest.raises(ModelError, match="comes with the program"):
                refused()
        with pytest.raises(ModelError, match="has that name already"):
            import_model(shipped_folder() / f"{name}.safetensors", name.upper())


def test_import_rename_remove(own, made):
    assert import_model(made).parent == own
    assert import_model(made, "second").stem == "second"
    assert {row.name: row.error for row in model_rows() if not row.shipped} == {
        "made": 0.04,
        "second": 0.04,
    }
    assert rename_model("second", "third") == own / "third.safetensors"
    path, card = find_model("third")
    assert load_model(path).sha256 == card["sha256"] and not (own / "second.json").exists()
    assert remove_model("third") == path and not list(own.glob("third*"))
    with pytest.raises(ModelError, match=r"third: no such model; models are .*made"):
        remove_model("third")


def test_a_run_folder_is_imported_under_its_own_name(own, made, tmp_path):
    run = tmp_path / "today"
    run.mkdir()
    for suffix in (".safetensors", ".json"):
        shutil.copy(made.with_suffix(suffix), run / f"model{suffix}")
    assert import_model(run).stem == "today"
    assert load_model(own / "today.safetensors").config == TINY


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a\\b", "x" * 90, "end.", "nul"])
def test_names_that_are_no_file_names_are_refused(own, made, name):
    with pytest.raises(ModelError, match="is no name for a model"):
        import_model(made, name)
    assert not list(own.glob("*"))


def test_a_damaged_model_is_not_taken_in(own, made, tmp_path):
    for suffix in (".safetensors", ".json"):
        shutil.copy(made.with_suffix(suffix), tmp_path / f"bad{suffix}")
    data = bytearray((tmp_path / "bad.safetensors").read_bytes())
    data[-3] ^= 1
    (tmp_path / "bad.safetensors").write_bytes(bytes(data))
    with pytest.raises(ModelError, match="does not match its card"):
        import_model(tmp_path / "bad.safetensors")
    with pytest.raises(ModelError, match="does not match its card"):
        copy_model(tmp_path / "bad.safetensors", tmp_path / "copy.safetensors")
    assert not list(own.glob("*"))


def test_a_model_with_a_broken_card_is_listed_with_its_fault(own, made):
    path = import_model(made)
    path.with_suffix(".json").write_text("{")
    (row,) = [row for row in model_rows() if not row.shipped]
    assert "card cannot be read" in row.fault and row.network == ""
    assert rename_model("made", "other").exists()


def test_nothing_is_overwritten(own, made, tmp_path):
    import_model(made)
    with pytest.raises(ModelError, match="has that name already"):
        import_model(made)
    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(WriteError, match="exists already"):
        copy_model(made, tmp_path / "out.safetensors")
    with pytest.raises(WriteError, match=r"ends in .safetensors"):
        copy_model(made, tmp_path / "out.pt")


def test_unused_names(own, made):
    assert unused_name("today") == "today"
    import_model(made, "today")
    assert unused_name("today") == "today-2" and unused_name("Today") == "Today-2"
    assert unused_name("a/b:c") == "a-b-c" and unused_name("..") == "model"
    assert unused_name("CON") == "model-CON"
