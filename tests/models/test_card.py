import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.core.training_images import ImageStack
from napari_txm_bgcorr.models.card import (
    carries,
    facts_of_images,
    fits,
    joined_fits,
    training_facts,
    without_places,
)
from napari_txm_bgcorr.models.scope import fitness
from napari_txm_bgcorr.simulation.illumination import FAMILIES
from napari_txm_bgcorr.training.config import TrainConfig


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/home/someone/runs/today", "today"),
        ("runs/coarse", "coarse"),
        ("C:\\data\\ref.xrm", "ref.xrm"),
        ("\\\\server\\share\\ref.xrm", "ref.xrm"),
        ("/data/runs/", "runs"),
        ("default", "default"),
        ("from /data/beam/ref 1.xrm on", "from ref 1.xrm on"),
        ("10 samples/s and/or 3 W", "10 samples/s and/or 3 W"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05+00:00"),
    ],
)
def test_only_the_last_part_of_a_path_stays(given, kept):
    assert without_places({"a": [given, 1, None]}) == {"a": [kept, 1, None]}


def test_references_inside_a_model_are_told_with_their_dates_where_known():
    known = {"count": 5, "size": [512, 512], "first": "2026-05-01T12:00:00", "newest": None}
    assert carries({"references": known}) == "5 undated references, 512 x 512 px"
    dated = carries({"references": known | {"newest": "2026-05-01T13:00:00"}})
    assert dated == "5 references of 2026-05-01T12:00:00 to 2026-05-01T13:00:00, 512 x 512 px"
    assert carries({}) == ""


def simulated_levels() -> list[float]:
    """Lowest and highest level of the families that are trained on."""
    levels = [family.level for family in FAMILIES.values() if not family.held_out]
    return [min(low for low, _ in levels), max(high for _, high in levels)]


def test_a_simulated_training_tells_its_range():
    facts = training_facts(TrainConfig().model_dump(mode="json"))
    assert facts["fits"] == {
        "level_counts": simulated_levels(), "field_um": [15.0, 15.0], "dark": "either",
    }  # fmt: skip
    assert "stripes" not in facts["data"]["families"] and "bl01b" in facts["data"]["families"]
    only = training_facts({"data": {"kind": "simulated", "families": ["bl01b"], "p_pedestal": 0}})
    assert only["fits"]["level_counts"] == [5000, 22000] and only["fits"]["dark"] == "removed"


def test_an_unknown_training_claims_nothing():
    assert training_facts({})["fits"] == {}
    assert fits({"training": "lost", "fits": None}) == {}
    assert fits({"fits": {"level_counts": [1, "x"], "binning": 3, "dark": "?"}}) == {}


def test_older_cards_are_read_through_their_training():
    card = {"training": TrainConfig().model_dump(mode="json")}
    assert fits(card)["level_counts"] == simulated_levels()


def test_references_give_levels_and_hashes():
    images = np.stack([np.full((8, 8), level, np.uint16) for level in (5000, 7000)])
    stack = ImageStack(images, ("/data/day/a.xrm", "b"), ("d", "d"))
    facts = facts_of_images([stack], {"instrument": "BL01B", "binning": [2]})
    assert facts["fits"] == {"binning": [2], "level_counts": [5000, 7000], "dark": "kept"}
    assert facts["data"]["sha256"].keys() == {"a.xrm", "b"} and facts["instrument"] == "BL01B"
    assert len(set(facts["data"]["sha256"].values())) == 2
    assert json.dumps(facts)
    dark = ImageStack(images, ("a", "b"), ("d", "d"), dark=np.zeros((8, 8), np.float32))
    assert facts_of_images([dark], {})["fits"]["dark"] == "removed"
    assert facts_of_images([dark, stack], {})["fits"]["dark"] == "either"


CARD = {
    "network": {"field_px": 256},
    "fits": {
        "binning": [2],
        "pixel_nm": [29.0, 30.0],
        "field_um": [15.0, 15.0],
        "level_counts": [5000, 22000],
        "energy_ev": [8000, 9000],
        "dark": "removed",
    },
}


def scan_of(level=12000.0, size=(512, 512), dtype=np.uint16, darks=True, **facts):
    known = {"pixel_nm": 29.3, "binning": 2, "energy_ev": 8500.0} | facts
    return Scan(
        tiles=np.full((1, *size), level, dtype),
        kind="single",
        source=Source(Path("tile.tif"), "tiff"),
        names=("tile",),
        darks=np.zeros((1, *size), np.uint16) if darks else None,
        **known,
    )


def test_data_like_the_training_is_passed_in_silence():
    assert fitness(CARD, scan_of()) == []
    assert fitness(CARD, scan_of(level=25000)) == []  # a little outside changes nothing
    unknown = scan_of(pixel_nm=None, binning=None, energy_ev=None)
    assert fitness(CARD, unknown) == []
    assert fitness({}, scan_of(level=60000, darks=False)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"binning": 4}, "trained at binning 2, this scan has 4"),
        ({"level": 60000}, "level of 5000 to 22000 counts, this scan has 6e+04"),
        ({"level": 1000}, "level of 5000"),
        ({"pixel_nm": 58.6}, "pixel size of 29 to 30 nm, this scan has 58.6"),
        ({"energy_ev": 11000.0}, "photon energy of 8000 to 9000 eV"),
        ({"darks": False}, "dark images removed, this scan has none"),
        ({"size": (512, 300)}, "tiles are 300 x 512 px"),
        ({"size": (100, 100), "pixel_nm": None}, "enlarged"),
        ({"level": 0.97, "dtype": np.float32}, "divided already"),
    ],
)
def test_what_does_not_fit_is_said(changes, words):
    said = fitness(CARD, scan_of(**changes), "model today")
    assert any(words in sentence for sentence in said), said
    assert all(s.startswith("model today: ") and "\n" not in s and "; " in s for s in said)


def test_a_model_without_darks_wonders_about_darks():
    card = CARD | {"fits": {"dark": "kept"}}
    assert "this scan has some" in fitness(card, scan_of())[0]
    assert fitness(card, replace(scan_of(), darks=None)) == []


def test_simulated_and_real_ranges_are_joined():
    simulated = {"level_counts": [3000, 40000], "field_um": [15, 15], "dark": "either"}
    real = {"level_counts": [50000, 60000], "binning": [2], "dark": "kept"}
    assert joined_fits(simulated, real) == {
        "level_counts": [3000, 60000], "field_um": [15, 15], "binning": [2], "dark": "either",
    }  # fmt: skip
    assert joined_fits({}, real) == real and joined_fits(simulated, {}) == simulated
