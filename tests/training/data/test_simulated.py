import numpy as np
import pytest
import torch

from napari_txm_bgcorr.models.tensors import scale_free_rms, staleness_value
from napari_txm_bgcorr.training.config import TrainConfig
from napari_txm_bgcorr.training.data import simulated
from napari_txm_bgcorr.training.data.pairs import batches, build_pairs, to_batch
from napari_txm_bgcorr.training.data.simulated import CASES, Pool, SimulatedPairs, _Shots, varied


def config(**data):
    return TrainConfig.model_validate(
        {
            "network": {"field_px": 64, "features": [8, 8]},
            "data": {"simulate_px": 64, "sessions_per_batch": 1, "workers": 0} | data,
            "batch": 4,
            "steps": 3,
        }
    )


def only(case, **data):
    shares = dict.fromkeys(("p_no_prior", "p_stale", "p_tile_median", "p_smooth"), 0.0)
    return config(**(shares | {case: 1.0} | data))


def error(pairs):
    return scale_free_rms(pairs.log_prior - pairs.log_background, pairs.weight)


def test_a_batch_is_a_function_of_seed_and_number():
    source, again = SimulatedPairs(config()), SimulatedPairs(config())
    again.draw(1)
    for a, b in zip(source.draw(3), again.draw(3), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(source.draw(3).log_raw, source.draw(4).log_raw)


def test_shapes_ranges_and_channels():
    batch = to_batch(SimulatedPairs(config()).draw(0))
    assert batch.inputs.shape == (4, 3, 64, 64) and batch.target.shape == (4, 1, 64, 64)
    assert all(t.dtype == torch.float32 and torch.isfinite(t).all() for t in batch)
    assert batch.inputs[:, 0].abs().max() < 6
    assert ((batch.weight - 0.05).abs() < 1e-6).logical_or(batch.weight == 1).all()


@pytest.mark.parametrize("pedestal", [0.0, 1.0])
def test_without_a_specimen_the_raw_tile_is_its_background(monkeypatch, pedestal):
    monkeypatch.setattr(simulated, "draw_specimen", lambda rng, shape: np.ones(shape, np.float32))
    for seed in range(3):
        source = SimulatedPairs(config(p_pedestal=pedestal))
        shots = _Shots(source, np.random.default_rng(seed), 2)
        noise = (shots.raw - shots.background)[:, shots.lit]
        assert abs(np.median(noise)) < 0.004 and np.percentile(np.abs(noise), 90) < 0.05


def test_no_prior_is_said_and_blank():
    pairs = SimulatedPairs(only("p_no_prior")).draw(0)
    assert (pairs.rms < 0).all()
    assert to_batch(pairs).inputs[:, 1:].abs().max() == 0


@pytest.mark.parametrize("case", ["p_stale", "p_tile_median", "p_smooth"])
def test_staleness_told_is_the_true_error(case):
    pairs = SimulatedPairs(only(case, staleness_sigma=0.0)).draw(0)
    torch.testing.assert_close(pairs.rms, error(pairs))
    assert (pairs.rms > 0).all() and (pairs.rms < 0.6).all()
    told = to_batch(pairs).inputs[:, 2, 0, 0]
    torch.testing.assert_close(told, staleness_value(pairs.rms))


def test_staleness_told_is_uncertain():
    sure = SimulatedPairs(only("p_stale", staleness_sigma=0.0)).draw(0)
    rough = SimulatedPairs(only("p_stale", staleness_sigma=0.4)).draw(0)
    assert torch.equal(sure.log_prior, rough.log_prior)
    ratio = rough.rms / sure.rms
    assert (ratio != 1).all() and (ratio > 0.1).all() and (ratio < 10).all()


def test_old_references_range_from_good_to_useless():
    source = SimulatedPairs(only("p_stale"))
    errors = torch.cat([error(source.draw(i)) for i in range(12)])
    assert errors.min() < 0.012 and errors.max() > 0.03


def test_a_known_dark_is_in_neither_and_an_unknown_one_in_both():
    """With the pedestal left in, shapes are flatter: the dark adds to bright and dim alike."""
    spread = {}
    for share in (0.0, 1.0):
        rng = np.random.default_rng(8)
        shots = _Shots(SimulatedPairs(config(p_pedestal=share)), rng, 2)
        assert shots.pedestal == bool(share)
        inside = shots.lit
        spread[share] = float(np.std(shots.background[0][inside]))
        level = np.median((shots.raw - shots.background)[:, inside])
        assert -2.5 < level < 0.1
    assert spread[1.0] < spread[0.0]


def test_a_tile_median_leaves_the_tile_out():
    shots = _Shots(SimulatedPairs(config()), np.random.default_rng(1), 4)
    shots.raw[2] = 1e6
    assert np.abs(shots.tile(2, "tile-median").prior).max() < 50


def test_validation_is_fixed_and_never_a_training_batch():
    source = SimulatedPairs(config(validation_sessions=2))
    first, second = source.validation(), source.validation()
    assert set(first) == set(CASES[:3])
    for case, pairs in first.items():
        assert pairs.log_raw.shape == (8, 1, 64, 64)
        assert all(torch.equal(a, b) for a, b in zip(pairs, second[case], strict=True))
    assert torch.equal(first["none"].log_raw, first["stale"].log_raw)
    same_seed = SimulatedPairs(config(validation_sessions=2, validation_seed=0))
    assert not torch.equal(same_seed.validation()["none"].log_raw[:4], source.draw(0).log_raw)


def test_worker_processes_draw_the_same_batches():
    alone, helped = config(), config(workers=1)
    here = list(batches(build_pairs(alone), alone, 0))
    there = list(batches(build_pairs(helped), helped, 0))
    assert len(here) == len(there) == 3
    for a, b in zip(here, there, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_flips_turn_all_channels_alike():
    kept, turned = config(p_flip=0.0), config(p_flip=1.0)
    a = next(batches(build_pairs(kept), kept, 0))
    b = next(batches(build_pairs(turned), turned, 0))
    for one, two in zip(zip(*a, strict=True), zip(*b, strict=True), strict=True):
        matches = [
            all(torch.equal(x.flip(dims), y) for x, y in zip(one, two, strict=True))
            for dims in ([], [1], [2], [1, 2])
        ]
        assert sum(matches) >= 1


POOLED = {"pool_sessions": 3, "pool_specimens": 6}


def test_pools_leave_batches_a_function_of_seed_and_number():
    straight, resumed = SimulatedPairs(config(**POOLED)), SimulatedPairs(config(**POOLED))
    for i in range(5):
        straight.draw(i)
    for a, b in zip(straight.draw(5), resumed.draw(5), strict=True):
        assert torch.equal(a, b)


def test_worker_processes_draw_the_same_batches_from_pools():
    alone, helped = config(**POOLED), config(workers=1, **POOLED)
    here = next(batches(build_pairs(alone), alone, 0))
    there = next(batches(build_pairs(helped), helped, 0))
    assert all(torch.equal(x, y) for x, y in zip(here, there, strict=True))


def test_a_pool_makes_few_things_renews_them_and_forgets_the_old():
    made = []
    pool = Pool(lambda rng: made.append(1) or len(made), (0, 3), size=4, fresh=2)
    rng = np.random.default_rng(0)
    for batch in range(50):
        for _ in range(8):
            pool.draw(rng, batch)
        assert len(pool._made) <= 4
        assert min(pool._made) >= 2 * batch
    assert 90 < len(made) <= 2 * 50 + 4


def test_validation_does_not_use_pools():
    one = SimulatedPairs(config(validation_sessions=1, **POOLED)).validation()["none"]
    two = SimulatedPairs(config(validation_sessions=1)).validation()["none"]
    assert torch.equal(one.log_raw, two.log_raw)


def test_a_varied_specimen_is_the_same_one_turned_and_thickened():
    image = np.random.default_rng(0).uniform(0.2, 1.2, (16, 16)).astype(np.float32)
    for seed in range(8):
        out = varied(image, np.random.default_rng(seed))
        assert out.shape == image.shape and out.min() > 0 and out.max() <= 1.6
        order = np.log(np.sort(out.ravel())[:64]) / np.log(np.sort(image.ravel())[:64])
        assert np.ptp(order) < 1e-3 and 0.5 <= order[0] <= 1.6
