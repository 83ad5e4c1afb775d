"""Measure the quality of each tile of a finished correction, and report it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_txm_bgcorr.core import SILENT, Progress

if TYPE_CHECKING:
    from napari_txm_bgcorr.io.output import FinishedOutput
    from napari_txm_bgcorr.quality import Gauge, TileQuality

    from .corrected_scan import CorrectedScan

__all__ = ["make_report", "measure_corrected", "measure_output", "summarise"]

LISTED = 10  # the worst tiles


def measure_output(
    path: Path, dark: Sequence[Path] = (), *, register: bool = True, progress: Progress = SILENT
) -> tuple[FinishedOutput, Gauge]:
    """Open a finished output and measure every tile of it.

    Parameters
    ----------
    path : Path
    dark : sequence of Path
        Images without beam; empty: those of the correction, as far as they are found.
    register : bool
        Register neighbouring tiles; else the stage's positions.
    progress : Progress

    Raises
    ------
    ReadError
        If it is no complete output.
    """
    from napari_txm_bgcorr import io
    from napari_txm_bgcorr.io.output import open_finished
    from napari_txm_bgcorr.quality import measure

    output = open_finished(path)
    if dark:
        darks = io.read_references(dark, like=output.scan, role="darks").images
        output = replace(output, scan=replace(output.scan, darks=darks))
    novelty = None
    if output.provenance.get("weights_sha256"):  # PyTorch takes a second to load
        from napari_txm_bgcorr.models import novelty_of

        novelty = novelty_of(output.scan, output.provenance)

    def shown(done: int, total: int) -> None:
        progress.step("measuring", done, total)

    gauge = measure(
        output.scan,
        output.background,
        output.corrected,
        output.mask,
        registration=register,
        progress=shown,
        novelty=novelty,
        described=output.provenance.get("parameters"),
    )
    return output, gauge


def measure_corrected(corrected: CorrectedScan, progress: Progress = SILENT) -> Gauge:
    """Measure every tile of a correction in memory."""
    from napari_txm_bgcorr.quality import measure

    def shown(done: int, total: int) -> None:
        progress.step("measuring", done, total)

    provenance, novelty = corrected.provenance(), None
    if provenance.get("weights_sha256"):
        from napari_txm_bgcorr.models import novelty_of

        novelty = novelty_of(corrected.scan, provenance)
    return measure(
        corrected.scan,
        corrected.background,
        corrected.transmission,
        corrected.valid,
        progress=shown,
        novelty=novelty,
        described=provenance["parameters"],
    )


def make_report(output: FinishedOutput, gauge: Gauge, table: TileQuality) -> Any:
    """Everything that goes on the page."""
    from napari_txm_bgcorr.io import Report, worst

    scan = output.scan
    kind = str(scan.kind)
    if scan.grid is not None:
        kind += f" of {scan.grid[0]} x {scan.grid[1]}"
    facts = {
        "scan": f"{kind}, {len(scan)} tiles of {table.size[1]} x {table.size[0]} px",
        "pixel": "unknown" if scan.pixel_nm is None else f"{scan.pixel_nm:.4g} nm",
        "energy": "unknown" if scan.energy_ev is None else f"{scan.energy_ev:.6g} eV",
        "exposure": "unknown" if scan.exposure_s is None else f"{scan.exposure_s:.4g} s",
    }
    if scan.times is not None and not np.isnat(scan.times).any():
        facts["taken"] = f"{scan.times.min()} to {scan.times.max()}".replace("T", " ")
    notes = []
    if scan.dark() is None and output.provenance.get("darks_sha256"):
        notes.append("The dark image of the correction was not found: figures of raw tiles and "
                     "backgrounds include the pedestal.")  # fmt: skip
    raw, corrected = gauge.pictures()
    return Report(
        title=f"Quality of {output.path.name}",
        quality=table,
        raw=raw,
        corrected=corrected,
        thumbnails={i: gauge.thumbnail(i) for i in worst(table)},
        provenance=output.provenance,
        facts=facts,
        notes=notes,
    )


def summarise(name: str, table: TileQuality) -> dict[str, Any]:
    """Figures and flags of all tiles, JSON-ready.

    Parameters
    ----------
    name : str
        Of the output.
    table : TileQuality
    """
    from napari_txm_bgcorr.io import worst
    from napari_txm_bgcorr.quality import FLAGS, raised

    found = raised(table)
    tiles = []
    for i in range(len(table)):
        flags = [key for key, mask in found.items() if mask[i]]
        tiles.append({**table.row(i), "flags": flags})
    marked = [row["tile"] for row in tiles if row["flags"]]
    return {
        "output": name,
        "tiles": tiles,
        "flagged": marked,
        "worst": [i for i in worst(table, LISTED) if i in marked],
        "flags": {key: {"tiles": int(mask.sum()), "rule": FLAGS[key].text()}
                  for key, mask in found.items()},
        "registered": table.registered,
    }  # fmt: skip
