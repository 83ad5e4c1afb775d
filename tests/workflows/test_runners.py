"""Tiles of several scans in one output: each by its own fit, at its own place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.core import SILENT, Progress, Scan
from napari_txm_bgcorr.workflows.runners import LocalRunner, results_of


class Level:
    """A background as bright as the first tile of the scan that it was fitted to."""

    name, workers = "level", 1

    def __init__(self) -> None:
        self.fits: list[float] = []

    def fit(self, scan: Scan, progress: Progress = SILENT) -> Level:
        self.fits.append(float(scan.tiles[0].max()))
        return self

    def background(self, tiles: np.ndarray, index: np.ndarray | None = None) -> np.ndarray:
        return np.full(tiles.shape, self.fits[-1], np.float32)

    def describe(self) -> dict[str, Any]:
        return {"fits": list(self.fits), "device": "toaster"}


def scans_of(sizes: Sequence[int]) -> list[Scan]:
    """Scan `k` has tiles of levels 100 (k + 1), one more for each tile."""
    return [
        Scan.from_array(
            np.stack([np.full((8, 8), 100 * (k + 1) + i, np.uint16) for i in range(size)])
        )
        for k, size in enumerate(sizes)
    ]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_each_wanted_tile_comes_once_from_its_own_scan(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    wanted = data.draw(st.sets(st.integers(0, sum(sizes) - 1)))
    places = [(k, i) for k, size in enumerate(sizes) for i in range(size)]
    method, fitted = Level(), []

    def fit(scan: Scan) -> Any:
        fitted.append(scan)
        return method.fit(scan)

    scans = scans_of(sizes)
    found = list(results_of(scans, fit, sorted(wanted), workers=1))
    assert [r.index for r in found] == sorted(wanted)
    for result in found:
        k, i = places[result.index]
        assert (result.raw == 100 * (k + 1) + i).all()
        assert (result.background == 100 * (k + 1)).all()
    needed = {places[n][0] for n in wanted}
    assert [scans.index(s) for s in fitted] == sorted(needed)  # no scan is fitted in vain


class Writer:
    def __init__(self, todo: Sequence[int], save: tuple[str, ...] = ("corrected",)) -> None:
        self.todo, self.save, self.written = list(todo), save, list[int]()

    def write(self, result: Any) -> None:
        assert (result.uncertainty is not None) == ("uncertainty" in self.save)
        self.written.append(result.index)


def test_a_single_scan_is_fitted_once_and_several_one_by_one() -> None:
    for sizes in ([3], [2, 2, 1]):
        method = Level()
        runner, scans = LocalRunner(method), scans_of(sizes)
        described, provenance = runner.fit(scans, scans[0])
        assert described["fits"] == [100.0] and provenance["device"] == "toaster"
        writer = Writer(range(sum(sizes)))
        done = list(runner.run(scans, writer))  # type: ignore[arg-type]
        assert [i for i, _ in done] == writer.written == list(range(sum(sizes)))
        assert all(valid for _, valid in done)
        assert method.fits == [100.0] + ([100.0, 200.0, 300.0] if len(sizes) > 1 else [])


def test_a_tile_without_a_valid_pixel_is_told() -> None:
    tiles = np.full((2, 8, 8), 100, np.uint16)
    tiles[1] = 0
    scan = Scan.from_array(tiles)
    runner = LocalRunner(Level())
    runner.fit([scan], scan)
    done = list(runner.run([scan], Writer([0, 1])))  # type: ignore[arg-type]
    assert done == [(0, True), (1, False)]


@pytest.mark.parametrize("todo", [[], [1]])
def test_only_what_is_left_to_do_is_done(todo: list[int]) -> None:
    (scan,) = scans_of([3])
    runner = LocalRunner(Level())
    runner.fit([scan], scan)
    writer = Writer(todo)
    list(runner.run([scan], writer))  # type: ignore[arg-type]
    assert writer.written == todo
