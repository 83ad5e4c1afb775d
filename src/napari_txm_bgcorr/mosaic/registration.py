"""Registration of the tiles of a mosaic, from the overlaps of neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import SILENT, Progress, Scan, TileArray, spread
from napari_txm_bgcorr.errors import MethodError

from .lattice import Lattice
from .matching import Matcher, Scores
from .overview import Overview, survey
from .placement import Edge, Trust, reconcile
from .step_belief import Belief, common_step, most_likely

__all__ = ["Edge", "Positions", "neighbours", "nominal_positions", "register"]

Floats = NDArray[np.float64]

REACH = 0.19  # of the tile: how far off their given shift neighbours are looked for
WIDER = 1.1  # of the tile: tiles that are said to abut may overlap
LEAST_OVERLAP = 0.02  # of the tile's area, for two tiles to be neighbours
STAGE = "registering neighbours"
DROP = 0.012  # of the tile: a measured shift this far off the common solution is wrong
MEASURED_SD = 0.005  # of the tile: of a shift between given places that were measured
# Measured places count, too. A regular lattice only holds what nothing was seen of.
NOMINAL, MEASURED = Trust(place=3e-4, step=1e-3), Trust(place=0.15, step=0.15)


@dataclass(frozen=True, eq=False)
class Positions:
    """Registered places of the tiles.

    Attributes
    ----------
    positions_px : (T, 2) float64
        Top left corners (y, x) in pixels, y downwards, least value 0.
    edges : tuple of Edge
        Every pair that was looked at.
    note : str
        What was found, one sentence.
    """

    positions_px: Floats
    edges: tuple[Edge, ...] = ()
    note: str = ""

    @property
    def used(self) -> int:
        """Number of measured shifts that the places rest on."""
        return sum(edge.used for edge in self.edges)


def nominal_positions(scan: Scan) -> Floats:
    """Places as the scan states them; abutting tiles where it only has a grid.

    Raises
    ------
    MethodError
        If the scan is no mosaic.
    """
    positions = scan.positions_px if scan.positions_px is not None else scan.abutted_positions()
    if positions is None:
        raise MethodError(
            f"{scan.source.path}: no grid and no positions; give the grid of the mosaic"
        )
    return np.asarray(positions, np.float64)


def neighbours(positions_px: Floats, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Pairs of tiles that share an edge, not a corner alone; the earlier tile first.

    Parameters
    ----------
    positions_px : (T, 2) float64
    size : (Y, X)
        Of a tile.
    """
    scaled = positions_px / np.asarray(size, np.float64)
    order = np.argsort(scaled[:, 0], kind="stable")
    rows = scaled[order, 0]
    ends = np.searchsorted(rows, rows + 1, side="right")  # all further ones are lower still
    pairs = []
    for place, i in enumerate(order.tolist()):
        beside = order[place + 1 : ends[place]]
        off = np.abs(scaled[beside] - scaled[i])
        area = (1 - off[:, 0]) * np.maximum(0.0, 1 - off[:, 1])
        # A corner overlap is narrow both ways; it would need its own, tiny window.
        near = beside[(area >= LEAST_OVERLAP) & (off.min(axis=1) < 0.5)]
        pairs += [(min(i, j), max(i, j)) for j in near.tolist()]
    return sorted(pairs)


def register(
    scan: Scan,
    backgrounds: TileArray | None = None,
    *,
    overview: Overview | None = None,
    workers: int = 1,
    progress: Progress = SILENT,
) -> Positions:
    """Measure where the tiles of a mosaic lie.

    Neighbours are correlated in the high-passed logarithm of the corrected tiles, over the
    part that they really share at each trial shift, within 19 % of the tile about the given
    shift. What all tiles have in common (the fixed pattern) is removed first, so that it cannot
    hold them at zero shift.

    Given places that form a regular lattice are nominal: the stage's true step is found from all
    pairs of a direction together, and takes the place of the nominal one where nothing is seen.
    Irregular ones were measured: they are refined by a few pixels only. Measured shifts
    are reconciled by least squares, those that contradict the others dropped.

    Parameters
    ----------
    scan : Scan
        A mosaic; cells may be empty.
    backgrounds : (T, Y, X) array-like, counts, or None
        Of any method; rough ones do. None where `overview` is given.
    overview : Overview or None
        Of an earlier `survey`, to save reading again.
    workers : int
        Threads that each correlate one pair at a time; the same result for any number.
    progress : Progress
        Told after each pair.

    Returns
    -------
    Positions

    Raises
    ------
    MethodError
        If the scan is no mosaic, or there is nothing to look at.
    StoppedError
        If the progress ended it.
    """
    given = nominal_positions(scan)
    if overview is None:
        if backgrounds is None:
            raise MethodError(f"{scan.source.path}: register: give backgrounds or an overview")
        overview = survey(scan, backgrounds, workers=workers, progress=progress)
    size = (int(scan.tiles.shape[1]), int(scan.tiles.shape[2]))
    lattice = Lattice.of(given, size)
    edges, expected = _measured(Matcher(overview), given, size, lattice, workers, progress)
    trust = NOMINAL if lattice else MEASURED
    placed, edges = reconcile(expected, edges, DROP * max(size), trust)
    used = sum(edge.used for edge in edges)
    rest = "at the stage's step" if lattice else "where the irregular places given have them"
    note = f"{used} of {len(edges)} neighbouring pairs registered, the others {rest}"
    return Positions(placed - placed.min(axis=0), tuple(edges), note)


def _measured(
    matcher: Matcher,
    given: Floats,
    size: tuple[int, int],
    lattice: Lattice | None,
    workers: int,
    progress: Progress,
) -> tuple[list[Edge], Floats]:
    """Compare every pair; return the edges and the expected positions of pairs without overlap."""
    near = size if lattice is None else (round(WIDER * size[0]), round(WIDER * size[1]))
    pairs = neighbours(given, near)
    shifts = [(given[j] - given[i]) / matcher.bin_px for i, j in pairs]
    maps = _maps(matcher, pairs, shifts, workers, progress)
    side, expected = max(matcher.shape), given
    if lattice is None:
        beliefs = [Belief(shift, MEASURED_SD * side, 0.0) for shift in shifts]
    else:
        beliefs, steps = _common(maps, shifts, side)
        expected = lattice.stretched(given, steps, matcher.bin_px)
    edges = [
        _edge(matcher.bin_px, pair, scores, belief)
        for pair, scores, belief in zip(pairs, maps, beliefs, strict=True)
    ]
    return edges, expected


def _maps(
    matcher: Matcher,
    pairs: Sequence[tuple[int, int]],
    shifts: Sequence[Floats],
    workers: int,
    progress: Progress,
) -> list[Scores | None]:
    """Scores of every pair, in order."""
    reach = max(2, round(REACH * max(matcher.shape)))

    def look(k: int) -> Scores | None:
        progress.check()
        return matcher.scores(*pairs[k], np.rint(shifts[k]).astype(int), reach)

    maps = []
    for scores in spread(look, range(len(pairs)), workers):
        maps.append(scores)
        progress.step(STAGE, len(maps), len(pairs))
    return maps


def _common(
    maps: Sequence[Scores | None], shifts: Sequence[Floats], side: int
) -> tuple[list[Belief], dict[tuple[int, int], Floats]]:
    """Belief in the shift of every pair, and the true step (bins) of each nominal one."""
    kinds: dict[tuple[int, int], list[int]] = {}
    for k, (y, x) in enumerate(np.rint(shifts).astype(int).tolist()):
        kinds.setdefault((y, x), []).append(k)
    beliefs = [Belief(np.zeros(2), 1.0, 1.0)] * len(maps)
    steps = {}
    for kind, members in kinds.items():
        nominal = np.array(kind, np.float64)
        belief, steps[kind] = common_step([maps[k] for k in members], nominal, side)
        for k in members:
            beliefs[k] = belief
    return beliefs, steps


def _edge(bin_px: int, pair: tuple[int, int], scores: Scores | None, belief: Belief) -> Edge:
    """Measured shift of a pair; unused where it is not certain."""
    expected = belief.shift * bin_px
    edge = Edge(*pair, (float(expected[0]), float(expected[1])))
    found = None if scores is None else most_likely(scores, belief)
    if scores is None or found is None:
        return edge
    height = float(scores.correlation[found.at])
    peak = float(scores.values[found.at])
    if not found.sure:
        return Edge(*pair, edge.shift_px, height, peak)
    shift = scores.top(found.at) * bin_px
    return Edge(*pair, (float(shift[0]), float(shift[1])), height, peak, True)
