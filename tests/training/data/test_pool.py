"""Pools of simulated things: cheap, yet every batch is a pure function of its number."""

from __future__ import annotations

import pickle

import numpy as np
import torch

from napari_txm_bgcorr.training.config import load_config
from napari_txm_bgcorr.training.data.simulated import Pool, SimulatedPairs, varied


def numbered(rng: np.random.Generator) -> float:
    return float(rng.random())


def pool(size: int = 6) -> Pool[float]:
    return Pool(numbered, (3, 0), size, 2)


def draws(one: Pool[float], batches: list[int]) -> dict[int, list[float]]:
    return {
        batch: [one.draw(np.random.default_rng(batch * 100 + k), batch) for k in range(8)]
        for batch in batches
    }


def test_a_batch_draws_the_same_whatever_was_drawn_before():
    forwards = draws(pool(), list(range(12)))
    resumed = draws(pool(), [7, 8, 9])
    assert all(resumed[batch] == forwards[batch] for batch in resumed)


def test_a_pool_reuses_things_and_keeps_no_more_than_its_size():
    made = []
    one = Pool(lambda rng: made.append(1), (0, 0), 6, 2)
    for batch in range(200):
        for k in range(8):
            one.draw(np.random.default_rng((batch, k)), batch)
    assert len(one._made) <= 6
    assert len(made) <= 200 * 2 + 6  # two fresh ones a batch, not eight


def test_two_things_differ():
    found = {value for values in draws(pool(), [0, 10]).values() for value in values}
    assert len(found) > 6


def test_a_varied_specimen_stays_a_transmission():
    rng = np.random.default_rng(0)
    specimen = np.full((16, 16), 1.0, np.float32)
    specimen[:4] = 0.5
    for _ in range(20):
        out = varied(specimen, rng)
        assert out.dtype == np.float32 and out.shape == (16, 16)
        assert 0 < out.min() < 0.75 and out.max() == 1.0  # thicker or thinner, never inverted
        assert np.isclose(out, 1.0).mean() == 0.75


def test_pairs_with_pools_are_pure_and_picklable():
    settings = [
        "network.field_px=32", "data.simulate_px=32", "batch=4", "data.sessions_per_batch=2",
        "data.pool_sessions=4", "data.pool_specimens=8",
    ]  # fmt: skip
    source = SimulatedPairs(load_config("default", settings))
    first = source.draw(5)
    source.draw(0)
    again = pickle.loads(pickle.dumps(SimulatedPairs(load_config("default", settings)))).draw(5)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)
