"""Correct some tiles of a finished output again, in place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_txm_bgcorr.errors import ConfigError

from .prepare import with_references
from .tile_redo import nearby, redo_tiles, subset

if TYPE_CHECKING:
    from napari_txm_bgcorr.core import BackgroundMethod, Scan
    from napari_txm_bgcorr.io.output import FinishedOutput

__all__ = ["flagged_tiles", "redo_output"]


def redo_output(
    path: Path,
    tiles: Sequence[int],
    *,
    method: str = "auto",
    model: str = "default",
    device: str = "auto",
    references: Sequence[Path] = (),
    darks: Sequence[Path] = (),
    local: int | None = None,
) -> Path:
    """Correct some tiles again by another method or reference; the others keep every bit.

    Parameters
    ----------
    path : Path
        OME-Zarr output.
    tiles : sequence of int
        Counted from 0; empty: nothing is done.
    method, model, device : str
        As in `CorrectionConfig`.
    references, darks : sequence of Path
        For these tiles.
    local : int or None
        See `redo_tiles`.

    Returns
    -------
    Path
        The output.

    Raises
    ------
    ReadError
        If it is no complete output.
    MethodError
        If a tile is not of the scan, or the method cannot work on it.
    ConfigError
        If the dark is another than that of the other tiles.
    """
    from napari_txm_bgcorr.backgrounds import LEARNED, make_method
    from napari_txm_bgcorr.io.output import Patch, open_finished

    output = open_finished(path)
    if not tiles:
        return output.path
    scan = with_references(output.scan, references, darks)
    subset(scan, tiles)
    given: dict[str, Any] = {"model": model, "device": device} if method in LEARNED else {}
    maker = make_method(method, **given)
    entry = _provenance(output, scan, maker, list(tiles), local)
    patch = Patch(output, list(tiles), entry)
    for result in redo_tiles(
        scan, maker, tiles, local=local, uncertainty="uncertainty" in patch.roles
    ):
        patch.write(result)
    patch.close_complete()
    return output.path


def flagged_tiles(path: Path, darks: Sequence[Path] = ()) -> list[int]:
    """Tiles of a finished output that the quality flags raise, ascending."""
    import numpy as np

    from napari_txm_bgcorr.quality import flagged

    from .quality_report import measure_output

    _, gauge = measure_output(path, darks)
    return [int(i) for i in np.flatnonzero(flagged(gauge.table()))]


def _provenance(
    output: FinishedOutput,
    scan: Scan,
    method: BackgroundMethod,
    tiles: list[int],
    local: int | None,
) -> dict[str, Any]:
    """Provenance of redone tiles; refuse another dark image than that of the other tiles."""
    from napari_txm_bgcorr.core import make_provenance

    part = scan if local is None else subset(scan, nearby(scan, tiles[0], max(1, local)))
    made = make_provenance(scan, method.fit(part)).to_dict()
    made["device"] = made["parameters"].get("device", "cpu")
    before = output.provenance.get("darks_sha256")
    if made["darks_sha256"] != before:
        raise ConfigError(
            f"{output.path}: the other tiles were corrected "
            f"{'without a' if before is None else 'with another'} dark image; "
            f"{'leave out --dark' if before is None else 'give the same with --dark'}"
        )
    keep = ("method", "parameters", "weights_sha256", "flats_sha256", "versions", "device", "date")
    return {"local": local, **{key: made[key] for key in keep}}
