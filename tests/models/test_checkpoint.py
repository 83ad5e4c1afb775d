import json
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.errors import ModelError
from napari_txm_bgcorr.models.checkpoint import (
    list_models,
    load_model,
    models_folder,
    resolve_model,
    save_model,
)
from napari_txm_bgcorr.models.networks import build_generator
from napari_txm_bgcorr.training.config import NetworkConfig

TINY = NetworkConfig(field_px=16, features=(4, 4))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(1)
    network = build_generator(TINY)
    for p in network.parameters():
        torch.nn.init.normal_(p)
    save_model(
        folder / "tiny.safetensors",
        network,
        TINY,
        training={"steps": 3},
        metrics={"validation_error_sf": {"none": 0.04}},
        notes="for tests",
    )
    return folder / "tiny.safetensors", network


@pytest.fixture
def model(saved, tmp_path):
    for file in (saved[0], saved[0].with_suffix(".json")):
        shutil.copy(file, tmp_path)
    return tmp_path / "tiny.safetensors"


def test_a_model_comes_back_as_it_was_saved(saved):
    path, network = saved
    back = load_model(path)
    assert back.config == TINY and not back.network.training
    for key, value in network.state_dict().items():
        assert torch.equal(back.network.state_dict()[key], value)
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["sha256"] == back.sha256 and card["notes"] == "for tests"
    assert card["training"] == {"steps": 3} and card["format_version"] == 1
    assert {"date", "program_version", "parameters", "metrics"} <= card.keys()


def test_equal_weights_are_equal_files(saved, tmp_path):
    path, network = saved
    hashes = {save_model(tmp_path / f"{k}.safetensors", network, TINY) for k in range(8)}
    assert hashes == {load_model(path).sha256}


def test_half_precision_storage_halves_the_file(tmp_path):
    wide = build_generator(NetworkConfig(features=(16, 16)))
    save_model(tmp_path / "a.safetensors", wide, NetworkConfig(features=(16, 16)))
    half = tmp_path / "b.safetensors"
    save_model(half, wide, NetworkConfig(features=(16, 16)), dtype="float16")
    assert half.stat().st_size < 0.65 * (tmp_path / "a.safetensors").stat().st_size
    for key, value in load_model(half).network.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, wide.state_dict()[key], atol=1e-3, rtol=1e-3)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 0.9999), bit=st.integers(0, 7), cut=st.booleans())
def test_any_changed_byte_or_lost_end_is_noticed(model, saved, place, bit, cut):
    data = bytearray(saved[0].read_bytes())
    spot = int(place * len(data))
    if cut:
        del data[spot:]
    else:
        data[spot] ^= 1 << bit
    model.write_bytes(bytes(data))
    with pytest.raises(ModelError, match="does not match its card"):
        load_model(model)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 0.9999), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_card_is_an_error_or_harmless(model, saved, place, byte, cut):
    data = bytearray(saved[0].with_suffix(".json").read_bytes())
    spot = int(place * len(data))
    if cut:
        del data[spot:]
    else:
        data[spot] = byte
    model.with_suffix(".json").write_bytes(bytes(data))
    try:
        load_model(model)
    except ModelError as error:
        assert "\n" not in str(error) and "tiny" in str(error)


def change_card(model, **changes):
    place = model.with_suffix(".json")
    place.write_text(json.dumps(json.loads(place.read_text()) | changes))


def reseal(model):
    """Make the card agree with altered weights, as a forger would."""
    import hashlib

    change_card(model, sha256=hashlib.sha256(model.read_bytes()).hexdigest())


def test_weights_of_another_network_are_refused(model):
    change_card(model, network={"field_px": 16, "features": [4, 8]})
    with pytest.raises(ModelError, match=r"another network"):
        load_model(model)


def test_a_card_with_an_unknown_network_is_refused(model):
    change_card(model, network={"name": "resnet"})
    with pytest.raises(ModelError, match="card's network cannot be built"):
        load_model(model)


def test_foreign_files_are_refused_even_with_a_matching_hash(model):
    model.write_bytes(b"\x80\x02cos\nsystem\n(S'true'\ntR." * 9)
    reseal(model)
    with pytest.raises(ModelError, match="is no safetensors file"):
        load_model(model)


def test_weights_with_nan_are_refused(model, saved):
    network = build_generator(TINY)
    next(network.parameters()).data.fill_(float("nan"))
    save_model(model, network, TINY)
    with pytest.raises(ModelError, match="holds NaN"):
        load_model(model)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": "other"}, "no card of a model"),
        ({"format_version": 99}, "format_version 99, this program reads 1"),
        ({"sha256": None}, "sha256 is missing"),
    ],
)
def test_cards_of_other_programs_are_refused(model, changes, match):
    change_card(model, **changes)
    with pytest.raises(ModelError, match=match):
        load_model(model)


def test_a_missing_card_is_named(model):
    model.with_suffix(".json").unlink()
    with pytest.raises(ModelError, match=r"tiny.json: the model's card is missing"):
        load_model(model)


def test_models_are_found_by_name_file_and_run(model, monkeypatch):
    monkeypatch.setenv("TXM_BGCORR_MODELS", str(model.parent))
    assert models_folder() == model.parent
    assert list_models()["tiny"] == model
    assert resolve_model("tiny") == resolve_model(model) == model
    run = model.parent / "run"
    run.mkdir()
    with pytest.raises(ModelError, match="no exported model yet"):
        resolve_model(run)
    shutil.copy(model, run / "model.safetensors")
    assert resolve_model(run) == run / "model.safetensors"
    with pytest.raises(ModelError, match=r"nowhere: no such model or file; models are .*tiny"):
        resolve_model("nowhere")
