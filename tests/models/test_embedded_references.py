"""References inside a model: the same bits as given by hand, and left aside where they mislead."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_txm_bgcorr import io
from napari_txm_bgcorr.backgrounds.auto_source import AutoSource
from napari_txm_bgcorr.backgrounds.embedded_matching import recall, spelt
from napari_txm_bgcorr.backgrounds.registry import make_method
from napari_txm_bgcorr.core.background_method import method_notes
from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.core.tile_array import LazyTiles
from napari_txm_bgcorr.core.training_images import ImageStack, TrainingData
from napari_txm_bgcorr.errors import ModelError
from napari_txm_bgcorr.io.training_images import read_training_data
from napari_txm_bgcorr.models.checkpoint import load_model, read_card, save_model
from napari_txm_bgcorr.models.embedded_references import Carried, choose_references
from napari_txm_bgcorr.models.export.bioimage import readme
from napari_txm_bgcorr.models.networks import build_generator
from napari_txm_bgcorr.models.store import copy_model, import_model, model_rows, rename_model
from napari_txm_bgcorr.training.config import TrainConfig, load_config
from napari_txm_bgcorr.training.loop import run_training

SIZE = 64
CONFIG = TrainConfig.model_validate(
    {"network": {"field_px": 32, "features": (8, 8)}, "loss_weights": {"l1": 1.0}}
).network
NOON = np.datetime64("2024-03-01T12:00:00")
FACTS = {"pixel_nm": 29.3, "energy_ev": 9000.0, "exposure_s": 60.0, "binning": 2.0}


def beam(instrument, hours=0.0):
    """Illumination `(Y, X)` counts with a fine pattern of its own."""
    rng = np.random.default_rng(instrument)
    y, x = np.meshgrid(*[np.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    pattern = 0.03 * rng.standard_normal((SIZE, SIZE))
    drift = 0.02 * np.tanh(hours / 8) * (y + x)
    return 9000 * np.exp(0.1 * rng.normal() * x - 0.1 * y * y + pattern + drift)


def exposures(instrument, hours, seed, specimen=False):
    rng = np.random.default_rng(seed)
    stack = np.stack([beam(instrument, h) for h in hours])
    for tile in stack if specimen else ():
        y, x = rng.integers(0, SIZE - 20, 2)
        tile[y : y + 20, x : x + 20] *= 0.5
    return rng.poisson(stack).astype(np.uint16)


def at(hours):
    return NOON + np.round(np.asarray(hours) * 3600).astype("timedelta64[s]")


def scan_of(hours=(4.0, 4.1, 4.2), instrument=1, kind="single", **facts):
    tiles = exposures(instrument, hours, 5, specimen=True)
    names = tuple(f"t{k}" for k in range(len(hours)))
    known = {"times": at(hours), "binning": 2, "exposure_s": 60.0} | facts
    return Scan(tiles, kind, Source(Path("made.tif"), "test"), names, **known)


def stack_of(hours=(0.0, 1.0), instrument=1, **changes):
    names = tuple(map(str, hours))
    made = ImageStack(
        exposures(instrument, hours, 3), names, ("day",) * len(hours), at(hours),
        acquisition=(FACTS,) * len(hours),
    )  # fmt: skip
    return replace(made, **changes)


def save(path, references, stated=0.2):
    torch.manual_seed(2)
    network = build_generator(CONFIG)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.05)
    metrics = {"validation_error_sf": {"none": stated}}
    save_model(path, network, CONFIG, metrics=metrics, references=references)
    return str(path)


@pytest.fixture(scope="module")
def stack():
    return stack_of()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, stack):
    return save(tmp_path_factory.mktemp("t") / "tuned.safetensors", choose_references([stack], 8))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return save(tmp_path_factory.mktemp("p") / "plain.safetensors", None)


def by_hand(scan, stack):
    return replace(scan, flats=stack.images, flat_times=stack.times)


def backgrounds(method, scan):
    fitted = method.fit(scan)
    return fitted.background(np.asarray(scan.tiles[:]), np.arange(len(scan)))


def test_the_same_bits_as_the_references_given_by_hand(tuned, plain, stack):
    scan = scan_of()
    carried = backgrounds(AutoSource(tuned, "cpu"), scan)
    given = backgrounds(AutoSource(plain, "cpu"), by_hand(scan, stack))
    assert np.array_equal(carried, given)
    assert not np.array_equal(carried, backgrounds(AutoSource(plain, "cpu"), scan))


@pytest.mark.parametrize("kind", ["mosaic", "series", "single"])
def test_the_same_bits_through_the_drift_model(tuned, plain, stack, kind):
    hours = np.linspace(4, 4.5, 6)
    scan = scan_of(hours, kind=kind, grid=(2, 3) if kind == "mosaic" else None)
    methods = [make_method("auto", model=model, device="cpu") for model in (tuned, plain)]
    carried, given = backgrounds(methods[0], scan), backgrounds(methods[1], by_hand(scan, stack))
    assert np.array_equal(carried, given)
    levels = [method.describe()["joint"]["level"] for method in methods]
    assert levels[0] == levels[1]


def test_the_description_says_where_the_prior_is_from(tuned, stack):
    told = AutoSource(tuned, "cpu").fit(scan_of()).describe()
    assert told["prior"] == "references"
    assert told["prior_from"] == "references of the model, 2 of 2024-03-01 12:00 to 13:00"
    assert method_notes(told) == [f"prior: {told['prior_from']}"]
    given = AutoSource(tuned, "cpu").fit(by_hand(scan_of(), stack)).describe()
    assert "prior_from" not in given and not method_notes(given)


def test_references_of_the_user_win(tuned, plain):
    other = stack_of((3.0,))
    scan = by_hand(scan_of(), other)
    assert np.array_equal(
        backgrounds(AutoSource(tuned, "cpu"), scan), backgrounds(AutoSource(plain, "cpu"), scan)
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"instrument": 2}, "another one"),
        ({"binning": 4}, "at binning 2, the tiles at 4"),
        ({"energy_ev": 11000.0}, "both references were taken at 9000 eV, the images at 11000 eV"),
        ({"energy_ev": 9003.0}, "both references were taken at 9000 eV, the images at 9003 eV"),
    ],
)
def test_references_of_another_instrument_are_left_aside(tuned, plain, change, words):
    scan = scan_of(**change)
    method = AutoSource(tuned, "cpu")
    assert np.array_equal(backgrounds(method, scan), backgrounds(AutoSource(plain, "cpu"), scan))
    told = method.describe()
    assert told["prior"] == "generator" and "prior_from" not in told
    assert "left aside" in method_notes(told)[0] and words in method_notes(told)[0]


def test_another_exposure_is_a_factor(tuned, plain, stack):
    scan = scan_of(exposure_s=30.0)
    method = AutoSource(tuned, "cpu")
    carried = backgrounds(method, scan)
    halves = replace(stack, images=(np.asarray(stack.images) / 2).astype(np.float32))
    by_half = backgrounds(AutoSource(plain, "cpu"), by_hand(scan, halves))
    assert np.array_equal(carried, by_half)
    assert any("references of 60 s scaled to the images' 30 s" in n for n in
               method.describe()["notes"])  # fmt: skip


@pytest.mark.parametrize(
    ("energy", "words"), [(8353, ""), (8250, "the reference was taken at 82")]
)
def test_real_references_serve_hours_later_at_another_exposure(txm_data, energy, words):
    folder = txm_data / "aps8bm"
    given = read_training_data([folder / f"ref_xanesocv_{energy}_0eV.xrm"]).references
    scan = io.read(folder / "fov03_xanessoc01_8353_0eV.xrm")
    found = recall(scan, choose_references(given, 8), None)
    assert found.refused.startswith(words) and bool(found.refused) == bool(words)
    if not words:
        assert found.attach(scan).flat_exposures_s.tolist() == [50] and scan.exposure_s == 35


def test_references_of_several_energies_serve_their_images(tmp_path, plain):
    energies = [{**FACTS, "energy_ev": e, "exposure_s": s} for e, s in ((9000, 60), (9100, 30))]
    both = stack_of((0.0, 1.0), acquisition=tuple(energies))
    path = save(tmp_path / "m.safetensors", choose_references([both], 8))
    again = load_model(Path(path)).references
    assert again.energies_ev.tolist() == [9000, 9100] and again.exposures_s.tolist() == [60, 30]
    scan = scan_of(energy_ev=9000.0)
    carried = backgrounds(AutoSource(path, "cpu"), scan)
    first = replace(scan, flats=both.images[:1], flat_times=both.times[:1])
    assert np.array_equal(carried, backgrounds(AutoSource(plain, "cpu"), first))
    notes = AutoSource(path, "cpu").fit(scan).describe()["notes"]
    assert any(note.startswith("1 of 2 references was taken at 9100 eV") for note in notes)


def test_the_models_references_serve_where_the_given_ones_have_another_energy(tuned):
    given = by_hand(scan_of(energy_ev=9000.0), stack_of((3.0,)))
    wrong = replace(given, flat_energies_ev=np.array([8000.0]))
    told = AutoSource(tuned, "cpu").fit(wrong).describe()
    assert "references of the model" in told["prior_from"]
    assert any(note.startswith("the reference was taken at 8000 eV") for note in told["notes"])


def test_references_of_another_size_are_left_aside(tuned):
    scan = scan_of()
    small = replace(scan, tiles=scan.tiles[:, :48, :48])
    told = AutoSource(tuned, "cpu").fit(small).describe()
    assert told["prior"] == "generator" and "64 x 64 px, the tiles 48 x 48 px" in told["notes"][0]


def test_the_drift_model_knows_how_old_they_are(tuned):
    fresh, old, undated = (
        make_method("auto", model=tuned, device="cpu").fit(scan).describe()["joint"]["prior"]
        for scan in (
            scan_of((1.0, 1.1)), scan_of((900.0, 900.1)), replace(scan_of((9.0, 9.1)), times=None)
        )
    )  # fmt: skip
    assert fresh["shared_sd"] < undated["shared_sd"] < old["shared_sd"]
    assert fresh["level_sd"] < undated["level_sd"] < old["level_sd"]


def test_models_and_cards_without_references_are_as_they_were(plain):
    card = read_card(Path(plain))
    assert card["format_version"] == 1 and "references" not in card
    assert load_model(Path(plain)).references is None
    assert "notes" not in AutoSource(plain, "cpu").fit(scan_of()).describe()


def test_a_copy_a_rename_and_an_import_keep_every_bit(tuned, stack, tmp_path, monkeypatch):
    monkeypatch.setenv("TXM_BGCORR_MODELS", str(tmp_path / "own"))
    copy_model(Path(tuned), tmp_path / "copy.safetensors")
    import_model(tmp_path / "copy.safetensors", "today")
    rename_model("today", "tonight")
    again = load_model(tmp_path / "own" / "tonight.safetensors").references
    assert np.array_equal(again.images, stack.images) and again.images.dtype == np.uint16
    assert np.array_equal(again.times, stack.times)
    assert again.acquisition == FACTS
    (row,) = [row for row in model_rows() if not row.shipped]
    assert row.references == "2, 2024-03-01"


def test_malformed_references_are_told(tmp_path, stack):
    path = Path(save(tmp_path / "m.safetensors", choose_references([stack], 8)))
    card = json.loads(path.with_suffix(".json").read_text())
    with pytest.raises(ModelError, match="malformed"):
        Carried.of({"references.images": torch.zeros(2, 4)}, card)
    with pytest.raises(ModelError, match="malformed"):
        Carried.of({"references.images": torch.zeros(2, 4, 4), "references.seconds":
                    torch.zeros(3, dtype=torch.int64)}, card)  # fmt: skip


def test_few_are_chosen_over_the_last_days_of_one_kind():
    days = stack_of(np.array([-100.0, *np.linspace(0, 10, 21)]))
    found = choose_references([days], 5)
    assert np.array_equal(found.times, at([0, 2.5, 5, 7.5, 10]))
    other = stack_of((20.0, 21.0), acquisition=({**FACTS, "energy_ev": 8000.0}, FACTS))
    both = choose_references([days, other], 2)
    assert np.array_equal(both.times, at([20, 21]))  # one of each energy
    assert both.energies_ev.tolist() == [8000, 9000] and both.exposures_s is None
    assert choose_references([days], 0) is None and choose_references([], 8) is None


def test_without_times_the_last_ones_and_floats_are_kept():
    images = np.linspace(0.5, 1, 3)[:, None, None] * np.ones((3, 8, 8))
    found = choose_references([ImageStack(images, tuple("abc"), ("s",) * 3)], 2)
    assert found.times is None and found.images.dtype == np.float32
    assert found.images[:, 0, 0].tolist() == [0.5, 1.0] and spelt(found) == "2 undated"


def test_large_references_are_few():
    def read(i):
        return np.full((2048, 2048), i, np.uint16)

    large = ImageStack(LazyTiles((6, 2048, 2048), np.uint16, read), tuple("abcdef"), ("s",) * 6)
    assert choose_references([large], 8).images[:, 0, 0].tolist() == [0, 5]


def test_an_exported_graph_says_that_they_are_not_in_it(tuned):
    text = readme(read_card(Path(tuned)), "tuned")
    assert "carries 2 references of 2024-03-01T12:00:00" in text and "not in this graph" in text


def test_a_fine_tuned_run_carries_what_it_learned_from(tmp_path, stack):
    config = TrainConfig.model_validate(
        {
            "network": {"field_px": 32, "features": (8, 8)},
            "data": {"mix": {"references": 1.0}, "simulate_px": 32, "workers": 0,
                     "validation_sessions": 1},
            "steps": 1, "batch": 4, "validate_every": 1, "remember": 8,
        }
    )  # fmt: skip
    made = run_training(config, tmp_path / "run", device="cpu", data=TrainingData((stack,)))
    card = read_card(made)
    assert card["references"] | FACTS == card["references"]
    assert card["references"]["newest"] == "2024-03-01T13:00:00"
    assert card["fits"]["binning"] == [2] and card["fits"]["energy_ev"] == [9000.0, 9000.0]
    told = AutoSource(str(tmp_path / "run"), "cpu").fit(scan_of()).describe()
    assert told["prior"] == "references"
    assert load_config("fine-tune", []).remember == 8 and TrainConfig().remember == 0
