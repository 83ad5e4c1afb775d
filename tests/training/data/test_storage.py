"""Images reduced to the field come back as they were, wherever they live."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.core import ImageStack
from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.models.tensors import field_of
from napari_txm_bgcorr.training.config import DataConfig
from napari_txm_bgcorr.training.data import storage
from napari_txm_bgcorr.training.data.storage import HALF, choose_residency, hold, reduced

CPU, PX = torch.device("cpu"), 16
PLACES = ["device", "cache", "smart-cache", "persistent"]


def beam(seed: int, size: tuple[int, int] = (PX, PX), level: float = 9000) -> np.ndarray:
    y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in size], indexing="ij")
    tilt = np.random.default_rng(seed).normal(0, 0.3, 2)
    return (level * np.exp(tilt[0] * y + tilt[1] * x)).astype(np.float32)


def stack(count: int, size: tuple[int, int] = (PX, PX), **facts: Any) -> ImageStack:
    images = np.stack([beam(k, size) for k in range(count)])
    names = tuple(f"ref{k}" for k in range(count))
    return ImageStack(images, names, tuple(f"day{k // 2}" for k in range(count)), **facts)


def counts_of(item: dict[str, torch.Tensor]) -> np.ndarray:
    return ((item["values"].float() + HALF) * item["scale"]).numpy()


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 999),
    level=st.floats(1e-3, 1e6),
    size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
)
def test_sixteen_bits_lose_less_than_a_part_in_65535_of_the_brightest(
    seed: int, level: float, size: tuple[int, int]
) -> None:
    image = beam(seed, size, level)
    item = reduced(image, None, PX)
    wanted = field_of(torch.from_numpy(image)[None, None], PX)[0, 0].numpy()
    assert item["values"].dtype == torch.int16 and item["values"].shape == (PX, PX)
    assert np.abs(counts_of(item) - wanted).max() <= 0.51 * wanted.max() / 65535 + 1e-9


def test_the_dark_is_taken_off_and_nothing_is_negative() -> None:
    image, dark = beam(1), np.full((PX, PX), 500, np.float32)
    dark[:, :4] = 1e6
    item = reduced(image.astype(np.uint16), dark, PX)
    got = counts_of(item)
    np.testing.assert_allclose(got[:, 6:], np.floor(image[:, 6:]) - 500, atol=0.2)
    assert (got >= 0).all() and np.abs(got[:, :3]).max() == 0


@pytest.mark.parametrize("value", [0.0, -3.0, float("nan")])
def test_a_blank_image_is_finite(value: float) -> None:
    item = reduced(np.full((PX, PX), value, np.float32), None, PX)
    assert np.abs(counts_of(item)).max() == 0


@pytest.mark.parametrize("px", [16, 18])
def test_a_cell_with_any_unlit_pixel_is_unlit(px: int) -> None:
    image = beam(2, (px, px))
    image[: px // 4, : px // 4] = 1.0
    item = reduced(image, None, px)
    cells = -(-px // 4)
    assert item["lit"].shape == (cells, cells)
    assert item["lit"][0, 0] == 0 and item["lit"][-1, -1] == 1
    assert set(item["lit"].unique().tolist()) == {0, 1}


def held(place: str, tmp_path: Any, stacks: list[ImageStack], **data: Any) -> storage.Images:
    config = DataConfig(residency=place, cache_folder=str(tmp_path / "cache"), **data)  # type: ignore
    return hold(stacks, config, PX, CPU)


@pytest.mark.parametrize("place", PLACES)
def test_every_place_gives_the_same_images(place: str, tmp_path: Any) -> None:
    stacks = [stack(3), stack(2, (2 * PX, 3 * PX))]
    images = held(place, tmp_path, stacks)
    assert images.residency == place and len(images) == 5
    everything = np.concatenate([np.arange(5), [4, 0, 0]])
    got = images.take(everything, -1)
    assert got.counts.shape == got.lit.shape == (8, 1, PX, PX)
    wanted = [counts_of(reduced(s.images[k], None, PX)) for s in stacks for k in range(len(s))]
    for k, counts in zip(everything, got.counts[:, 0].numpy(), strict=True):
        np.testing.assert_array_equal(counts, wanted[k])
    assert (got.lit == 1).all()
    for batch in (0, 1, 60):
        allowed = images.window(batch)
        assert set(allowed.tolist()) <= set(range(5)) and len(allowed) == len(set(allowed))
        np.testing.assert_array_equal(
            images.take(allowed, batch).counts[:, 0], np.stack(wanted)[allowed]
        )


def test_facts_of_images_follow_their_order(tmp_path: Any) -> None:
    times = np.datetime64("2026-01-01T06:00:00", "s") + 3600 * np.arange(3)
    dark = np.full((PX, PX), 90, np.float32)
    dark[0, 0] = 1e6
    images = held(
        "device", tmp_path, [stack(3, times=times, dark=dark), stack(2, (2 * PX, 3 * PX))]
    )
    assert images.sessions.tolist() == ["day0", "day0", "day1", "day0", "day0"]
    np.testing.assert_allclose(np.diff(images.hours[:3]), 1.0)
    assert np.isnan(images.hours[3:]).all()
    np.testing.assert_array_equal(images.pedestal, [90, 90, 90, np.nan, np.nan])
    np.testing.assert_array_equal(images.shrink, [1, 1, 1, 6, 6])


def test_smaller_images_are_not_taken_for_averages(tmp_path: Any) -> None:
    assert held("device", tmp_path, [stack(2, (8, 8))]).shrink.tolist() == [1, 1]


@settings(deadline=None, max_examples=40)
@given(count=st.integers(2, 12), window=st.integers(1, 12), rounds=st.integers(0, 40))
def test_a_smart_caches_window_is_a_function_of_the_batch_and_visits_all(
    count: int, window: int, rounds: int
) -> None:
    def made() -> Any:
        return storage._InSmartCache([{"k": k} for k in range(count)], None, window)  # type: ignore

    one, other = made(), made()
    other.window(7)
    batch = rounds * storage.BATCHES_PER_ROUND
    np.testing.assert_array_equal(one.window(batch), other.window(batch))
    np.testing.assert_array_equal(one.window(batch), one.window(batch + 49))
    assert len(set(one.window(batch).tolist())) == min(window, count - 1)
    seen = {int(k) for r in range(11 * count) for k in one.window(r * storage.BATCHES_PER_ROUND)}
    assert seen == set(range(count))


def test_one_image_needs_no_smart_cache(tmp_path: Any) -> None:
    assert held("smart-cache", tmp_path, [stack(1)]).residency == "cache"


def test_without_an_image_nothing_is_held() -> None:
    with pytest.raises(ConfigError, match="no image; give references"):
        hold([], DataConfig(), PX, CPU)


@pytest.mark.parametrize(
    ("memory", "disk", "place"),
    [(10**12, 0, "device"), (1000, 10**12, "persistent"), (1000, 1000, "smart-cache")],
)
def test_the_place_follows_from_what_is_free(
    memory: int, disk: int, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        storage.psutil, "virtual_memory", lambda: SimpleNamespace(available=memory)
    )
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda p: SimpleNamespace(free=disk))
    assert choose_residency("auto", 100, PX, CPU) == place
    assert choose_residency("cache", 100, PX, CPU) == "cache"  # what is wanted holds


def test_a_small_gpu_leaves_images_to_the_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.torch.cuda, "mem_get_info", lambda d: (1000, 1000))
    monkeypatch.setattr(
        storage.psutil, "virtual_memory", lambda: SimpleNamespace(available=10**12)
    )
    assert choose_residency("auto", 100, PX, torch.device("cuda")) == "cache"


def test_a_temporary_folder_goes_with_the_images(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    monkeypatch.setattr(storage, "tempfile", SimpleNamespace(mkdtemp=lambda prefix: str(made)))
    images = hold([stack(2)], DataConfig(residency="persistent"), PX, CPU)
    images.take(np.arange(2), 0)
    assert any(made.iterdir())
    del images
    gc.collect()
    assert not made.exists()
