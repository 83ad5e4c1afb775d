"""Eigen flats: the ways in which a day's references vary, fitted to each tile.

V. Van Nieuwenhove et al., "Dynamic intensity normalization using eigen flat fields in X-ray
imaging", Optics Express 23 (2015) 27975. As there: principal components of the references,
their number by parallel analysis, and coefficients that give the corrected tile the least
total variation. Unlike there all is done in logarithms, where the corrected tile is linear
in the coefficients and the least total variation is a convex problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import (
    SILENT,
    Coarse,
    Progress,
    Scan,
    log_beam,
    match_references,
    one_algebra_thread,
    spread_indices,
    to_counts,
    upper,
)
from napari_txm_bgcorr.errors import MethodError

from .captured import Captured, flats_of, tiles_alike

__all__ = ["EigenFlats", "LevelledEigenFlats"]

Image = NDArray[np.float32]
MAX_FLATS = 64
FIT_CELLS = (
    32  # the variation is taken between cells: single pixels are noise, as the eigen flats are
)
SHUFFLES = 5  # of the parallel analysis
SAMPLE = 16384  # pixels it looks at


@dataclass(frozen=True, eq=False)
class _Shape:
    """Mean and principal components of references, logarithms at median 0.

    Attributes
    ----------
    mean : (Y, X) float32
    components : (K, Y, X) float32
    mean_cells, component_cells : float32
        The same over cells.
    """

    mean: Image
    components: Image
    mean_cells: Image
    component_cells: Image

    def fitted(self, log_raw: Image, rounds: int) -> Image:
        """Log background of one log tile `(Y, X)`."""
        rest = Coarse(self.mean.shape, FIT_CELLS).mean(log_raw) - self.mean_cells
        shape = self.mean
        if len(self.components):
            c = _least_variation(rest, self.component_cells, rounds)
            rest = rest - np.tensordot(c, self.component_cells, 1)
            shape = shape + np.tensordot(c, self.components, 1)
        return shape + np.float32(upper(rest, np.ones(rest.shape, bool)))


class EigenFlats:
    """Mean of the references plus their principal components, fitted to each tile.

    Parameters
    ----------
    components : int or None
        Number of components; None: those that stand out of the noise (parallel analysis).
    rounds : int
        Rounds of reweighting in the fit.

    Raises
    ------
    MethodError
        If `components` is negative or `rounds` below 1.
    """

    name, workers = "eigen-flats", 1

    def __init__(self, components: int | None = None, rounds: int = 15) -> None:
        if (components is not None and components < 0) or rounds < 1:
            raise MethodError(
                f"components {components}, rounds {rounds}: give 0 components and 1 round or more"
            )
        self.components, self.rounds = components, int(rounds)
        self._dark: Image | None = None
        self._shapes: list[_Shape] = []
        self._shape_of: NDArray[np.intp] = np.empty(0, np.intp)
        self._notes: tuple[str, ...] = ()

    def fit(self, scan: Scan, progress: Progress = SILENT) -> Self:
        """Take the mean and the components of the references.

        Raises
        ------
        MethodError
            If there are fewer than 3 references of the photon energy of a tile.
        """
        progress.check()
        flats_of(scan, 3, self.name)
        self._dark = scan.dark()
        match = match_references(scan, levels=False)
        self._notes = match.divided_notes
        self._shapes = []
        self._shape_of = np.zeros(len(scan), np.intp)
        for tiles, index in tiles_alike(match):
            if len(index) < 3:
                raise MethodError(
                    f"{scan.source.path}: {len(index)} references have the photon energy of "
                    f"{len(tiles)} images, {self.name} needs 3 or more; add some with --reference"
                )
            self._shape_of[tiles] = len(self._shapes)
            self._shapes.append(self._shape(scan, index))
        return self

    def _shape(self, scan: Scan, index: NDArray[np.intp]) -> _Shape:
        """Mean and components of references `index`."""
        flats: Any = scan.flats
        chosen = [int(index[k]) for k in spread_indices(len(index), MAX_FLATS)]
        logs = np.stack([log_beam(flats[i], self._dark) for i in chosen])
        logs -= np.median(logs[:, ::4, ::4], axis=(1, 2), keepdims=True)
        mean: Image = logs.mean(axis=0)
        logs -= mean
        coarse, components = Coarse(mean.shape, FIT_CELLS), _components(logs, self.components)
        cells = np.array([coarse.mean(e) for e in components], np.float32)
        return _Shape(mean, components, coarse.mean(mean), cells.reshape(-1, *coarse.size))

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Fit the components to each tile `(N, Y, X)`; see `BackgroundMethod`."""
        if not self._shapes:
            raise MethodError("eigen-flats: not fitted; call fit(scan) first")
        out = np.empty(tiles.shape, np.float32)
        for k, raw in enumerate(tiles):
            shape = self._shapes[0 if index is None else self._shape_of[int(index[k])]]
            out[k] = to_counts(shape.fitted(log_beam(raw, self._dark), self.rounds), self._dark)
        return out

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        used = max((len(shape.components) for shape in self._shapes), default=0)
        found: dict[str, Any] = {
            "components": self.components, "rounds": self.rounds, "used": used
        }  # fmt: skip
        return found | {"notes": list(self._notes)} if self._notes else found


class LevelledEigenFlats(EigenFlats):
    """The same shapes at the levels that the references tell."""

    knows_drift = follows_shape = True

    def fit(self, scan: Scan, progress: Progress = SILENT) -> Self:
        """As `EigenFlats`."""
        self._captured = Captured().fit(scan, progress)
        return super().fit(scan, progress)

    def with_references(self, scan: Scan) -> Scan:
        """The scan itself: its references are those that are used."""
        return scan

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """See `BackgroundMethod`."""
        shapes, told = super().background(tiles, index), self._captured.background(tiles, index)
        dark = np.float32(0) if self._dark is None else self._dark
        for shape, level in zip(shapes, told, strict=True):
            shape -= dark
            shape *= np.median(((level - dark) / shape)[::4, ::4])
            shape += dark
        return shapes


def _components(logs: Image, wanted: int | None) -> Image:
    """Principal components `(K, Y, X)`, rms 1, of log references with their mean removed."""
    flat = logs.reshape(len(logs), -1)
    with one_algebra_thread():
        values, vectors = np.linalg.eigh((flat @ flat.T).astype(np.float64))
    order = np.argsort(values)[::-1]
    most = len(logs) - 1
    keep = _significant(flat, vectors[:, order]) if wanted is None else min(wanted, most)
    chosen = vectors[:, order[:keep]].astype(np.float32)
    scale = np.sqrt(np.maximum(values[order[:keep]], 1e-30)).astype(np.float32)
    eigen: Image = ((chosen / scale).T @ flat).reshape(keep, *logs.shape[1:])
    return eigen * np.float32(np.sqrt(flat.shape[1]))


def _significant(flat: Image, vectors: NDArray[np.float64]) -> int:
    """Number of components that stand out of the noise: parallel analysis (Horn 1965).

    One by one, the greatest eigenvalue of what the components so far leave is compared with
    that of the same rows with their pixels shuffled: noise stays, what rows share goes. The
    threshold is the mean plus two standard deviations over shuffles, as in the paper.
    """
    rng = np.random.default_rng(0)
    count = len(flat)
    rest = flat[:, :: max(1, flat.shape[1] // SAMPLE)].astype(np.float64)
    rest = rest - rest.mean(axis=1, keepdims=True)
    for k in range(count - 1):
        drawn = [rng.permuted(rest, axis=1) for _ in range(SHUFFLES)]
        tops = [np.linalg.eigvalsh(mixed @ mixed.T)[-1] for mixed in drawn]
        # The rows span count - 1 - k directions, the shuffled ones count.
        limit = (np.mean(tops) + 2 * np.std(tops)) * count / (count - 1 - k)
        if np.linalg.eigvalsh(rest @ rest.T)[-1] <= limit:
            return k
        one = vectors[:, k : k + 1]
        rest = rest - one @ (one.T @ rest)
    return count - 1


def _least_variation(rest: Image, eigen: Image, rounds: int) -> NDArray[np.float32]:
    """Coefficients `(K,)` of ``argmin sum |grad(rest - c . eigen)|`` by reweighting."""

    def slopes(x: Image) -> NDArray[np.float64]:
        return np.concatenate([np.diff(x, axis=0).ravel(), np.diff(x, axis=1).ravel()]).astype(
            np.float64
        )

    y = slopes(rest)
    a = np.stack([slopes(e) for e in eigen], axis=1)
    weight = np.ones(y.size)
    c: NDArray[np.floating[Any]] = np.zeros(len(eigen))
    for _ in range(rounds):
        weighted = a * weight[:, None]
        normal, right = np.einsum("nk,nl->kl", weighted, a), np.einsum("nk,n->k", weighted, y)
        c = np.linalg.lstsq(normal, right, rcond=None)[0]
        off = np.abs(y - a @ c)
        weight = 1 / np.maximum(off, 0.1 * np.median(off) + 1e-9)
    return c.astype(np.float32)
