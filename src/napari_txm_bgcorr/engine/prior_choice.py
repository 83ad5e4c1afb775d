"""Which prior a scan's backgrounds start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core.errors import MethodError
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.engine.prior_error import rms_change
from napari_txm_bgcorr.engine.priors import (
    COMPARED,
    Prior,
    blind_error,
    dated,
    log_counts,
    predicted_median,
    spread_indices,
    tile_median,
)
from napari_txm_bgcorr.engine.shared_prior import mixed_prior, shared_prior

__all__ = ["LEFT", "PRIORS", "PriorChoice", "PriorKind"]

PriorKind = Literal["auto", "none", "reference", "shared", "tile-median", "predicted-median"]
PRIORS: tuple[str, ...] = get_args(PriorKind)
ENOUGH_TILES = 5  # of what is no mosaic, for a shape that they share
OLD, UNLIKE = 0.05, 0.4  # expected error from which a difference so large tells of another time
LEFT = 0.75  # of a stale reference's error, in the result that starts from it

Image = NDArray[np.float32]


@dataclass(frozen=True)
class PriorChoice:
    """The priors to be had for a scan, and how far each can be trusted.

    Parameters
    ----------
    scan : Scan
    dark : (Y, X) float32, counts, or None
        What is removed from its tiles.
    reference : callable
        `reference() -> Prior`: its references, with the error that the network tells of them.
    predict : callable
        `(Y, X)` log counts to the log background predicted without a prior.
    card : mapping
        Of the model, whose errors by case it may state.
    workers : int
        Threads that predict.
    given : bool
        Whether somebody gave the references with the scan: undated ones are believed then.
    """

    scan: Scan
    dark: Image | None
    reference: Callable[[], Prior]
    predict: Callable[[Image], Image]
    card: Mapping[str, Any]
    workers: int = 1
    given: bool = True

    def choose(self, kind: PriorKind) -> Prior | None:
        """The prior of that kind; None: nothing but the tile itself.

        Raises
        ------
        MethodError
            If the prior asked for is not to be had from this scan.
        """
        if kind == "auto":
            return self._best()
        if kind == "none":
            return None
        if kind == "reference":
            return self.reference()
        count, least = len(self.scan), 2 if kind == "shared" else 3
        if count < least:
            raise MethodError(
                f"{self.scan.source.path}: prior {kind} needs {least} tiles or more, there are "
                f"{count}; choose prior none"
            )
        if kind == "shared":
            return shared_prior(self.scan, self.dark, self.predict, self.workers)
        if kind == "tile-median":
            return tile_median(self.scan, self.dark)
        return predicted_median(self.scan, self.dark, self.predict, self.workers)

    def candidates(self) -> dict[str, Prior | None]:
        """What a mosaic's backgrounds may start from, by kind; the best for levels first.

        A reference knows the levels of single tiles best; next does the network by itself.
        Quantiles of the raw tiles are among the shapes that the joint stage tries in any case.
        """
        reference = self._unless_too_old(self.reference()) if self._has_flats() else None
        return {"none": None} if reference is None else {"reference": reference, "none": None}

    def _best(self) -> Prior | None:
        """As `auto` of `Generator` says."""
        mosaic = self.scan.kind == "mosaic"
        if self._has_flats():
            reference = self._unless_too_old(self.reference())
            if mosaic and len(self.scan) > 1:
                return self._with_tiles(reference)
            return reference
        # The specimen of a tomogram never leaves the field: it stays in what its tiles share.
        enough = len(self.scan) >= (2 if mosaic else ENOUGH_TILES)
        return self.choose("shared" if enough and self.scan.kind != "series" else "none")

    def keeps_reference(self) -> bool:
        """Whether its references are expected to be better than nothing."""
        return self._unless_too_old(self.reference()) is not None

    def _has_flats(self) -> bool:
        return self.scan.flats is not None and self.scan.flats.shape[0] > 0

    def _unless_too_old(self, reference: Prior) -> Prior | None:
        """The reference, or nothing where the network alone is expected to be off by less."""
        if self.given and not dated(self.scan):
            return reference
        expected = self._expected(reference)
        worse = LEFT * expected > self._blind_error()
        return None if worse or (expected > OLD and self._unlike(reference)) else reference

    def _unlike(self, reference: Prior) -> bool:
        """Whether the network by itself sees another illumination: it changes no prior so far."""
        differences = []
        for i in spread_indices(len(self.scan), COMPARED):
            blind = self.predict(log_counts(self.scan.tiles[i], self.dark))
            differences.append(rms_change(blind - reference.of(i)))
        return float(np.median(differences)) > UNLIKE

    def _blind_error(self) -> float:
        """Error expected without a prior, from the model's card; infinite where it is silent."""
        stated = self.card.get("metrics", {}).get("validation_error_sf", {})
        return blind_error(stated if isinstance(stated, dict) else {})

    def _with_tiles(self, reference: Prior | None) -> Prior:
        """What the tiles of a mosaic share, and its reference."""
        shared = shared_prior(self.scan, self.dark, self.predict, self.workers)
        return shared if reference is None else mixed_prior(reference, shared)

    def _expected(self, prior: Prior) -> float:
        """Its expected error, on average over the scan's tiles."""
        return float(np.mean([prior.rms(i) for i in range(len(self.scan))]))
