"""Mixed pairs: pure in seed and number, split by session, true to the physics."""

from __future__ import annotations

import gc
import pickle
import threading

import numpy as np
import pytest
import torch

from napari_txm_bgcorr.core.tile_array import LazyTiles
from napari_txm_bgcorr.core.training_images import ImageStack, TrainingData
from napari_txm_bgcorr.errors import ConfigError, ReadError
from napari_txm_bgcorr.models.tensors import log_field, scale_free_rms
from napari_txm_bgcorr.simulation.illumination_drift import expected_drift
from napari_txm_bgcorr.training.config import TrainConfig
from napari_txm_bgcorr.training.data.mixed import MixedPairs, Shares, active_mix
from napari_txm_bgcorr.training.data.pairs import batches, build_pairs, to_batch
from napari_txm_bgcorr.training.data.split import split
from napari_txm_bgcorr.training.data.storage import hold

PX = 32
STILL = {"gain": 0.0, "drift_h": 0.0, "noise": 0.0, "defocus_px": 0.0, "crop": 1.0}
STILL |= {"turn": False, "flip": False, "thickness": (1.0, 1.0)}


def config(mix: dict[str, float], **data: object) -> TrainConfig:
    changes = {"mix": mix, "simulate_px": PX, "sessions_per_batch": 1, "workers": 0}
    changes |= {"validation_sessions": 1, "pool_specimens": 8, "pool_sessions": 4}
    return TrainConfig.model_validate(
        {"network": {"field_px": PX, "features": [8, 8]}, "data": changes | data,
         "batch": 8, "steps": 4}
    )  # fmt: skip


def beam(seed: int, size: int = PX, pedestal: float = 0.0) -> np.ndarray:
    y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    rng = np.random.default_rng(seed)
    return np.round(pedestal + 9000 * np.exp(-0.4 * y**2 + rng.normal(0, 0.2) * x)).astype("u2")


def stack(count: int = 6, per_session: int = 6, size: int = PX, **facts) -> ImageStack:
    images = np.stack([beam(k, size) for k in range(count)])
    names = tuple(f"ref_{k}" for k in range(count))
    return ImageStack(
        images, names, tuple(f"day{k // per_session}" for k in range(count)), **facts
    )


def samples(count: int = 6) -> ImageStack:
    images = np.ones((count, PX, PX), np.float32)
    for k, image in enumerate(images):
        image[4 + k : 20, 8:24] = 0.5 + 0.05 * k
    return ImageStack(images, tuple(map(str, range(count))), tuple(map(str, range(count))))


def everything() -> TrainingData:
    raws = np.stack([(beam(k) * 0.7).astype("u2") for k in range(6)])
    return TrainingData(
        (stack(4, 4), stack(3, 3, 2 * PX)),
        (samples(),),
        (ImageStack(raws, tuple("abcdef"), tuple("abcdef")),),
        (stack(6, 1),),
    )


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


ALL = {"pairs": 1.0, "samples": 1.0, "references": 1.0, "simulated": 1.0}


def test_a_batch_is_a_function_of_seed_and_number():
    source, again = (MixedPairs(config(ALL), everything(), torch.device("cpu")) for _ in "ab")
    again.draw(0)
    assert equal(source.draw(3), again.draw(3))
    assert not torch.equal(source.draw(3).log_raw, source.draw(2).log_raw)
    assert all(torch.isfinite(t).all() for t in source.draw(3))
    assert source.draw(3).log_raw.shape == (8, 1, PX, PX)


@pytest.mark.parametrize("residency", ["device", "cache", "smart-cache", "persistent"])
def test_resumed_batches_are_the_same_wherever_images_live(residency, tmp_path):
    settings = config(
        ALL, residency=residency, cache_folder=str(tmp_path / "cache"), smart_cache=4
    )
    held = config(ALL) if residency != "smart-cache" else settings
    whole = list(batches(build_pairs(held, everything()), held, 0))
    source = build_pairs(settings, everything())
    assert isinstance(source, MixedPairs) and source.residency["references"] == residency
    resumed = list(batches(source, settings, 2))
    assert len(whole) == 4 and len(resumed) == 2
    assert all(equal(a, b) for a, b in zip(whole[2:], resumed, strict=True))
    assert (tmp_path / "cache").exists() == (residency == "persistent")


def test_an_unreadable_image_is_told_though_a_thread_reads_it(tmp_path):
    def read(i: int) -> np.ndarray:
        raise ReadError(f"ref_{i}.xrm: torn; copy it again")

    torn = ImageStack(LazyTiles((4, PX, PX), np.uint16, read), tuple("abcd"), ("d",) * 4)
    settings = config({"references": 1.0}, residency="cache")
    source = build_pairs(settings, TrainingData(references=(torn,)))
    with pytest.raises(ReadError, match="torn"):
        list(batches(source, settings, 0))


def test_a_smart_cache_moves_over_all_images_and_back(monkeypatch):
    from napari_txm_bgcorr.training.data import storage as residency

    monkeypatch.setattr(residency, "BATCHES_PER_ROUND", 1)
    settings = config({"references": 1.0}, residency="smart-cache", smart_cache=3)
    images = residency.hold([stack()], settings.data, PX, torch.device("cpu"))
    seen = set()
    for batch in [*range(8), 2, 3]:
        window = images.window(batch)
        assert len(window) == 3
        seen |= set(window.tolist())
        counts = images.take(window, batch).counts[:, 0].numpy()
        np.testing.assert_allclose(counts, stack().images[window], rtol=2e-5, atol=0.2)
    assert seen == set(range(6))
    outside = images.take(np.arange(6), -1).counts[:, 0].numpy()  # validation sees all
    np.testing.assert_allclose(outside, stack().images, rtol=2e-5, atol=0.2)


def test_the_thread_of_a_smart_cache_ends_with_its_images():
    before = set(threading.enumerate())
    settings = config({"references": 1.0}, residency="smart-cache", smart_cache=3)
    images = hold([stack()], settings.data, PX, torch.device("cpu"))
    images.take(images.window(0), 0)
    begun = [t for t in threading.enumerate() if t not in before and "manage" in t.name]
    assert begun
    del images
    gc.collect()
    for thread in begun:
        thread.join(10)
        assert not thread.is_alive()


def test_workers_make_what_the_training_process_would_have_made():
    settings = config({"references": 1.0, "simulated": 1.0})
    source = build_pairs(settings, everything())
    assert isinstance(source, MixedPairs)
    maker = pickle.loads(pickle.dumps(source.maker))
    assert equal(source.finish(1, maker.parts(1)), source.draw(1))


def test_shares_hold_on_average_and_fill_every_batch():
    shares = Shares((("references", 0.7), ("simulated", 0.3)), 8, 1)
    counts = [shares.of(i) for i in range(400)]
    assert all(sum(c.values()) == 8 for c in counts)
    assert np.mean([c["references"] for c in counts]) == pytest.approx(5.6, abs=0.1)


def test_kinds_without_data_are_left_out():
    only = TrainingData(references=(stack(),))
    assert active_mix(config(ALL), only) == {"references": 0.5, "simulated": 0.5}
    with pytest.raises(ConfigError, match="give --references"):
        active_mix(config({"references": 1.0}), TrainingData())
    with pytest.raises(ConfigError, match="clean samples need"):
        active_mix(config(ALL), TrainingData(samples=(samples(),)))
    with pytest.raises(ConfigError, match="unknown"):
        active_mix(config({"dreams": 1.0}), only)
    tuned = config(ALL).model_copy(update={"init": "default"})
    with pytest.raises(ConfigError, match="nothing to learn from"):
        active_mix(tuned, TrainingData())
    assert active_mix(config(ALL), TrainingData()) == {"simulated": 1.0}  # from nothing


def test_without_change_a_composed_pair_is_reference_times_sample():
    settings = config({"samples": 1.0}, augment=STILL, staleness_sigma=0.0)
    data = TrainingData((stack(4, 4),), (samples(4),))
    pairs = MixedPairs(settings, data, torch.device("cpu")).draw(0)
    refs = np.log(stack(4, 4).images.astype(float))
    for raw, background in zip(pairs.log_raw[:, 0], pairs.log_background[:, 0], strict=True):
        assert min(np.abs(background.numpy() - r).max() for r in refs) < 1e-3
        # unknown pedestal: only the beam above it is dimmed, so never more than the sample's
        through = (raw - background).exp().numpy()
        assert 0.49 < through.min() < 1 and np.median(through[:, :4]) == pytest.approx(1, abs=1e-3)


def test_a_known_dark_is_no_guess():
    dark = np.full((PX, PX), 500.0, np.float32)
    images = np.stack([beam(k, pedestal=500) for k in range(4)])
    refs = ImageStack(images, tuple("abcd"), ("d",) * 4, None, dark)
    settings = config({"samples": 1.0}, augment=STILL, p_pedestal=0.0)
    clean = samples(4)
    pairs = MixedPairs(settings, TrainingData((refs,), (clean,)), torch.device("cpu")).draw(0)
    through = (pairs.log_raw - pairs.log_background).exp().amin((1, 2, 3)).numpy()
    held = np.array([0.5, 0.55, 0.6, 0.65])
    assert np.abs(through[:, None] - held).min(1).max() < 2e-3  # the sample's own transmission
    beams = np.log(images - 500.0)
    found = pairs.log_background[:, 0].numpy()
    assert all(min(np.abs(f - b).max() for b in beams) < 1e-3 for f in found)


def test_priors_of_every_case_are_off_by_what_is_told():
    for case in ("p_stale", "p_tile_median", "p_smooth"):
        shares = dict.fromkeys(("p_no_prior", "p_stale", "p_tile_median", "p_smooth"), 0.0)
        settings = config({"references": 1.0}, staleness_sigma=0.0, **(shares | {case: 1.0}))
        pairs = MixedPairs(settings, everything(), torch.device("cpu")).draw(1)
        error = scale_free_rms(pairs.log_prior - pairs.log_background, pairs.weight)
        torch.testing.assert_close(pairs.rms, error)
        assert (error > 1e-4).all() and (error < 0.8).all(), case


def test_stale_priors_are_told_by_their_age_where_wanted():
    times = np.array(["2026-05-01T00", "2026-05-01T06"], "datetime64[s]")
    data = TrainingData(references=(stack(2, 2, times=times),))
    still = {"augment": STILL, "p_no_prior": 0.0, "p_tile_median": 0.0, "p_smooth": 0.0}
    ages = {"min_age_h": 2.999, "max_age_h": 3.0}
    source = MixedPairs(
        config({"references": 1.0}, p_told_by_age=1.0, **still, **ages), data, torch.device("cpu")
    )
    told = {round(float(rms), 4) for i in range(3) for rms in source.draw(i).rms}
    assert told == {round(expected_drift(age), 4) for age in (3.0, 6.0)}  # own one, the other


def test_a_sessions_mean_pattern_takes_noise_out_of_the_background():
    rng = np.random.default_rng(4)
    spots = beam(0) * np.kron(rng.uniform(0.8, 1.0, (8, 8)), np.ones((4, 4)))
    images = rng.poisson(spots[None].repeat(8, 0) / 8).astype("u2") * 8
    noisy = ImageStack(images, tuple("abcdefgh"), ("day",) * 8)
    still = {"augment": STILL, "p_no_prior": 1.0}
    spread = []
    for share in (False, True):
        source = MixedPairs(
            config({"references": 1.0}, share_pattern=share, **still),
            TrainingData(references=(noisy,)), torch.device("cpu"),
        )  # fmt: skip
        off = source.draw(0).log_background - log_field(torch.from_numpy(spots)[None, None], PX)
        spread.append(float(off.diff(dim=-1).std()))
    assert spread[1] < 0.6 * spread[0]


def test_validation_is_fixed_and_disjoint_in_sessions():
    settings = config({"references": 1.0, "simulated": 1.0})
    data = TrainingData(references=(stack(12, 2),))
    source = MixedPairs(settings, data, torch.device("cpu"))
    train, held = source.composer[0].usable, source.composer[1].usable
    days = source.composer[0].references.sessions
    assert not set(days[train]) & set(days[held])
    assert "day5" in days[train]  # the newest stays
    cases = source.validation()
    assert list(cases) == ["none", "stale", "tile-median", "simulated-none", "simulated-stale"]
    again = MixedPairs(settings, data, torch.device("cpu"))
    again.draw(0)
    assert all(equal(cases[case], pairs) for case, pairs in again.validation().items())
    assert torch.equal(cases["none"].log_raw, cases["stale"].log_raw)  # one tile, every prior
    assert to_batch(cases["none"]).inputs[:, 1:].abs().max() == 0
    assert "sessions unseen" in source.notes[0]


@pytest.mark.parametrize(
    ("count", "per_session", "held", "words"),
    [
        (1, 1, 0, "1 reference, too few"),
        (2, 2, 0, "2 references, too few"),
        (5, 5, 1, "other moments"),
        (8, 2, 2, "unseen"),
    ],
)
def test_the_split_says_what_it_can_tell(count, per_session, held, words):
    parts = split([f"day{k // per_session}" for k in range(count)], 1)
    assert words in parts.tells
    overlap = len(set(parts.train) & set(parts.validation))
    assert overlap == (count if held == 0 else 0)
    assert len(parts.validation) == (held or count)


def test_real_pairs_keep_partners_together():
    settings = config({"pairs": 1.0})
    pairs = MixedPairs(settings, everything(), torch.device("cpu")).draw(0)
    ratio = (pairs.log_raw - pairs.log_background).exp()
    assert (ratio - 0.7).abs().max() < 2e-3
