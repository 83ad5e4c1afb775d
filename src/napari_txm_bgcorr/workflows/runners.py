"""Runners that correct tiles: in this process, or in others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from napari_txm_bgcorr.core import (
    SILENT,
    BackgroundMethod,
    Progress,
    Scan,
    TileResult,
    correct_tiles,
    make_provenance,
)

if TYPE_CHECKING:
    from napari_txm_bgcorr.io import OutputWriter

__all__ = ["LocalRunner", "TileRunner", "Told", "results_of"]

Told = tuple[dict[str, Any], dict[str, Any]]
"""Description of a fitted method, and the provenance of what it makes."""


class TileRunner(Protocol):
    """Corrects tiles somewhere.

    Attributes
    ----------
    notes : list of str
        What the user should know of how the work went.
    """

    notes: list[str]

    def fit(self, scans: Sequence[Scan], whole: Scan) -> Told:
        """Fit the method to the first scan: its description, and the provenance of all."""

    def run(self, scans: Sequence[Scan], writer: OutputWriter) -> Iterator[tuple[int, bool]]:
        """Correct and write the tiles in ``writer.todo``: index, and whether a pixel is valid."""


class LocalRunner:
    """Corrects in this process; the model stays on the device from scan to scan.

    Parameters
    ----------
    method : BackgroundMethod
        Not fitted.
    progress : Progress
        Of the fit.
    """

    def __init__(self, method: BackgroundMethod, progress: Progress = SILENT) -> None:
        self.method, self.progress = method, progress
        self.notes: list[str] = []

    def fit(self, scans: Sequence[Scan], whole: Scan) -> Told:
        """Fit the method to the first scan; see `TileRunner`."""
        described = self.method.fit(scans[0], self.progress).describe()
        device = str(described.get("device", "cpu"))
        return described, make_provenance(whole, self.method, device).to_dict()

    def run(self, scans: Sequence[Scan], writer: OutputWriter) -> Iterator[tuple[int, bool]]:
        """Correct and write tile by tile; see `TileRunner`."""
        # a single scan was fitted just now
        fit = self.method.fit if len(scans) > 1 else lambda scan: self.method
        with_sd = "uncertainty" in writer.save
        for result in results_of(scans, fit, writer.todo, uncertainty=with_sd):
            writer.write(result)
            yield result.index, bool(result.valid.any())


def results_of(
    scans: Sequence[Scan],
    fit: Callable[[Scan], BackgroundMethod],
    wanted: Sequence[int],
    workers: int | None = None,
    uncertainty: bool = False,
) -> Iterator[TileResult]:
    """Correct the wanted tiles of scans that share one output.

    Parameters
    ----------
    scans : sequence of Scan
    fit : callable
        `fit(scan)` returns the method fitted to that scan.
    wanted : sequence of int
        Places in the output, where the scans' tiles follow one another.
    workers : int or None
        Threads; see `correct_tiles`.
    uncertainty : bool
        Also that of each background.
    """
    chosen, offset = frozenset(wanted), 0
    for scan in scans:
        todo = [i for i in range(len(scan)) if i + offset in chosen]
        if todo:
            for result in correct_tiles(
                scan, fit(scan), indices=todo, workers=workers, uncertainty=uncertainty
            ):
                yield replace(result, index=result.index + offset)
        offset += len(scan)
