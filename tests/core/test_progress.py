"""Report and cancelling of fits: every stage tells, and none goes on by more than a tile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.drift.model import DriftModel
from napari_txm_bgcorr.backgrounds.smooth import Smooth, TileMedian
from napari_txm_bgcorr.core.progress import Progress
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.tile_array import LazyTiles
from napari_txm_bgcorr.errors import StoppedError
from napari_txm_bgcorr.simulation.acquisition import simulate_mosaic, simulate_series

STAGES = ("looking at tiles", "registering neighbours", "solving for all tiles")


@pytest.fixture(scope="module")
def mosaic() -> Scan:
    made = simulate_mosaic(3, 3, size=64, seed=3, references=1, reference_hours=8.0)
    return replace(made.scan, tiles=np.asarray(made.scan.tiles[:]))


@pytest.fixture(scope="module")
def series() -> Scan:
    made = simulate_series(9, size=64, seed=3)
    return replace(made.scan, tiles=np.asarray(made.scan.tiles[:]))


def counted(scan: Scan) -> tuple[Scan, Callable[[], int]]:
    """The scan, and how many tiles were read from it."""
    read: list[int] = []

    def tile(i: int) -> np.ndarray:
        read.append(i)
        return scan.tiles[i]

    tiles = LazyTiles(tuple(scan.tiles.shape), scan.tiles.dtype, tile)
    return replace(scan, tiles=tiles), lambda: len(read)


def test_every_stage_of_a_mosaic_tells_how_far_it_is(mosaic: Scan) -> None:
    told: list[tuple[str, int, int]] = []
    joint = DriftModel(Smooth())
    joint.fit(mosaic, Progress(lambda *step: told.append(step)))
    for stage in STAGES:
        steps = [(done, total) for name, done, total in told if name == stage]
        assert steps, stage
        assert steps == sorted(steps)
        assert all(0 <= done <= total for done, total in steps)
    assert [d for name, d, _ in told if name == STAGES[0]] == list(range(1, 10))


def test_a_series_tells_its_stage(series: Scan) -> None:
    told: list[str] = []
    DriftModel(Smooth()).fit(series, Progress(lambda stage, *_: told.append(stage)))
    assert {STAGES[0], STAGES[2]} == set(told)


def test_plain_methods_are_followed_by_what_they_read(mosaic: Scan) -> None:
    told: list[tuple[str, int, int]] = []
    method = TileMedian().fit(mosaic, Progress(lambda *step: told.append(step)))
    assert [d for _, d, _ in told] == list(range(1, 10))
    assert told[0][0] == "preparing tile-median"
    same = TileMedian().fit(mosaic)
    index = np.arange(9)
    np.testing.assert_array_equal(
        method.background(mosaic.tiles, index), same.background(mosaic.tiles, index)
    )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("after", [0, 4])
def test_stopping_reads_no_more_than_the_tiles_at_hand(
    mosaic: Scan, after: int, workers: int
) -> None:
    scan, read = counted(mosaic)
    joint = DriftModel(Smooth())
    joint.method.workers = workers  # type: ignore[attr-defined]
    progress = Progress(should_stop=lambda: read() >= after)
    with pytest.raises(StoppedError):
        joint.fit(scan, progress)
    assert read() <= after + workers
    assert joint.backgrounds is None and joint.solution is None


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_can_be_stopped(mosaic: Scan, stage: str) -> None:
    reached: list[str] = []
    joint = DriftModel(Smooth())
    progress = Progress(lambda name, *_: reached.append(name), lambda: stage in reached)
    with pytest.raises(StoppedError):
        joint.fit(mosaic, progress)
    assert reached.count(stage) == 1, "it stopped at once"


def test_what_progress_raises_ends_the_fit(mosaic: Scan) -> None:
    class Gone(Exception):
        pass

    def tell(stage: str, done: int, total: int) -> None:
        if done == 3:
            raise Gone

    with pytest.raises(Gone):
        TileMedian().fit(mosaic, Progress(tell))
