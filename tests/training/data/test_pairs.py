"""Batches by number: channels as the network takes them, flips of all parts alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.models.tensors import Batch, Pairs, median, network_input
from napari_txm_bgcorr.training.data import pairs as pairs_module
from napari_txm_bgcorr.training.data.pairs import (
    _flipped,
    batches,
    build_pairs,
    to_batch,
    worker_count,
)
from tests.training.toy import ToyPairs, toy_config


def drawn(count: int = 4) -> Pairs:
    return ToyPairs(toy_config(batch=count)).draw(0)


def test_a_target_is_the_background_at_the_level_of_the_raw_tile() -> None:
    pairs = drawn()
    batch = to_batch(pairs)
    level = median(pairs.log_raw)
    torch.testing.assert_close(batch.target, pairs.log_background - level)
    torch.testing.assert_close(batch.inputs[:, :1], pairs.log_raw - level)
    assert torch.equal(batch.inputs, network_input(*pairs[:1], pairs.log_prior, pairs.rms))
    assert torch.equal(batch.weight, pairs.weight) and torch.equal(batch.free, pairs.free)


@settings(deadline=None, max_examples=20)
@given(gain=st.floats(-5, 5), prior_gain=st.floats(-5, 5))
def test_no_gain_of_raw_and_background_changes_a_batch(gain: float, prior_gain: float) -> None:
    pairs = drawn()
    changed = pairs._replace(
        log_raw=pairs.log_raw + gain,
        log_background=pairs.log_background + gain,
        log_prior=pairs.log_prior + prior_gain,
    )
    for one, other in zip(to_batch(pairs), to_batch(changed), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_a_tile_is_mirrored_with_all_its_parts_or_not_at_all(seed: int, share: float) -> None:
    shape = torch.arange(64.0).view(1, 1, 8, 8) + 100 * torch.arange(6.0).view(6, 1, 1, 1)
    batch = Batch(shape.repeat(1, 3, 1, 1), shape.clone(), shape.clone(), shape.clone())
    got = _flipped(batch, share, np.random.default_rng(seed))
    for k in range(6):
        ways = [shape[k], shape[k].flip(1), shape[k].flip(2), shape[k].flip(1, 2)]
        (way,) = [n for n, way in enumerate(ways) if torch.equal(got.target[k], way)]
        for part in got:
            for channel in part[k]:
                assert torch.equal(channel, ways[way][0])
    if share == 0:
        assert torch.equal(got.target, shape)


def test_flips_are_drawn_from_the_number_and_not_from_before() -> None:
    config = toy_config(steps=8, data={"kind": "toy", "workers": 0, "sessions_per_batch": 1,
                                       "p_flip": 1.0})  # fmt: skip
    whole = list(batches(build_pairs(config), config, 0, 0))
    again = list(batches(build_pairs(config), config, 5, 0))
    assert len(again) == 3
    for one, other in zip(whole[5:], again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    plain = toy_config(steps=8, data={"kind": "toy", "workers": 0, "sessions_per_batch": 1,
                                      "p_flip": 0.0})  # fmt: skip
    unturned = list(batches(build_pairs(plain), plain, 0, 0))
    assert any(not torch.equal(a.target, b.target) for a, b in zip(whole, unturned, strict=True))
    assert torch.equal(unturned[2].target, to_batch(build_pairs(plain).draw(2)).target)


@pytest.mark.parametrize(("first", "count"), [(0, 8), (7, 1), (8, 0), (30, 0)])
def test_a_run_that_is_done_draws_nothing(first: int, count: int) -> None:
    config = toy_config(steps=8)
    assert len(list(batches(build_pairs(config), config, first, 0))) == count


def test_drawing_leaves_the_random_numbers_of_the_training_alone() -> None:
    config = toy_config(steps=4)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    list(batches(build_pairs(config), config, 0, 0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("cores", "device", "processes", "wanted"),
    [(16, "cpu", 1, 4), (4, "cpu", 1, 1), (1, "cpu", 1, 1), (6, "cuda", 1, 5), (16, "cuda", 1, 8),
     (16, "cuda", 4, 3), (16, "cpu", 8, 1), (2, "cuda", 0, 1)],
)  # fmt: skip
def test_workers_follow_the_cores(
    cores: int, device: str, processes: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plenty = type("Free", (), {"available": 10**15, "free": 10**15})
    monkeypatch.setattr(pairs_module, "cpu_cores", lambda: cores)
    monkeypatch.setattr(pairs_module.psutil, "virtual_memory", lambda: plenty)
    monkeypatch.setattr(pairs_module.shutil, "disk_usage", lambda p: plenty)
    monkeypatch.setattr(pairs_module.sys, "platform", "linux")
    auto = toy_config(data={"kind": "toy", "workers": "auto"})
    assert worker_count(auto, device, processes) == wanted
    assert worker_count(toy_config(data={"kind": "toy", "workers": 3}), device, processes) == 3


def test_short_memory_means_fewer_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    free: dict[str, Any] = {"available": 3.2 * 2**30}
    monkeypatch.setattr(pairs_module, "cpu_cores", lambda: 64)
    monkeypatch.setattr(
        pairs_module.psutil,
        "virtual_memory",
        lambda: type("M", (), {"available": free["available"]}),
    )
    monkeypatch.setattr(pairs_module.shutil, "disk_usage", lambda p: type("D", (), {"free": 1e15}))
    auto = toy_config(data={"kind": "toy", "workers": "auto"})
    assert worker_count(auto, "cuda") == 2
    free["available"] = 1.0
    assert worker_count(auto, "cuda") == 1
