"""Match the references that a model carries to a scan that brings none.

Nobody chose them for this scan, so they are held against it before they are attached: size,
binning, pixel size and photon energy, and the fine pattern of camera and scintillator. Another
exposure is a factor, and how stale they are is told by their times.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.core import Scan, match_references, spread_indices
from napari_txm_bgcorr.models import Carried, log_field

__all__ = ["Recall", "likeness", "mismatch", "recall"]

Image = NDArray[np.float32]
MARGINS = {"binning": 0.0, "pixel_nm": 0.02}
UNITS = {"binning": ("binning", ""), "pixel_nm": ("pixel size", " nm")}
FIELD_PX = 256  # on which patterns are compared, fewer where tiles are smaller
BAND = (3, 15)  # boxes in pixels of that field; the pattern is the band between
CLIP = 3.0  # of the band's sigma: edges of specimens do not drown the pattern
LIT = 0.3  # of the median
COMPARED = 5  # tiles that tell
ALIKE = 0.06  # least correlation; simulated: 0.07 or more, at most 0.045 for other instruments
TELLS = 0.2  # of two references with each other, from which the pattern tells anything


@dataclass(frozen=True)
class Recall:
    """References that a model carries, and the reason if a scan cannot use them.

    Attributes
    ----------
    references : Carried
    refused : str
        Reason why they are not used; empty: they are used.
    """

    references: Carried
    refused: str = ""

    def attach(self, scan: Scan) -> Scan:
        """Add the references to the scan, if they are used."""
        if self.refused:
            return scan
        return self.references.bundle().attach(scan)

    @property
    def source(self) -> str:
        """Description of the references, for the provenance."""
        return f"references of the model, {spelt(self.references)}"

    def describe(self) -> dict[str, Any]:
        """Entries to add to the method's description."""
        if self.refused:
            return {"notes": [f"{self.source}, are left aside: {self.refused}"]}
        return {"prior_from": self.source, "notes": [f"prior: {self.source}"]}


def spelt(references: Carried) -> str:
    """Number and dates of the references, in words."""
    facts = references.describe()
    if facts["first"] is None:
        return f"{facts['count']} undated"
    first, last = (str(facts[key])[:16].replace("T", " ") for key in ("first", "newest"))
    if first[:10] == last[:10]:
        last = last[11:]
    return f"{facts['count']} of {first}" + ("" if first.endswith(last) else f" to {last}")


def recall(
    scan: Scan,
    carried: Carried | None,
    dark: Image | None,
    *,
    wanted: bool = False,
) -> Recall | None:
    """Hold a model's own references against a scan.

    Parameters
    ----------
    scan : Scan
    carried : Carried or None
    dark : (Y, X) float32, counts, or None
        What is removed from its tiles.
    wanted : bool
        References were asked for by name: their fine pattern is not compared.

    Returns
    -------
    Recall or None
        None where the model carries none, or the scan brings its own, which count.
    """
    own = scan.flats is not None and scan.flats.shape[0] > 0
    if carried is None or own:
        return None
    used = Recall(carried)
    if refused := mismatch(carried, scan):
        return replace(used, refused=refused)
    if wanted:
        return used
    if not _same_pattern(carried, scan, dark):
        return replace(used, refused="the fine pattern in these tiles is another one")
    return used


def mismatch(carried: Carried, scan: Scan) -> str:
    """Describe the first fact of a scan that the references do not fit; empty if none is known."""
    size, wanted = carried.images.shape[1:], tuple(scan.tiles.shape[1:])
    if tuple(size) != wanted:
        return f"they have {size[0]} x {size[1]} px, the tiles {wanted[0]} x {wanted[1]} px"
    for name, margin in MARGINS.items():
        theirs, ours = carried.acquisition.get(name), getattr(scan, name)
        if theirs is None or ours is None or not np.isfinite(ours):
            continue
        if abs(theirs - ours) > margin * abs(theirs):
            what, unit = UNITS[name]
            return f"they were taken at {what} {theirs:g}{unit}, the tiles at {ours:g}{unit}"
    match = match_references(carried.bundle().attach(scan))
    return "" if match.shape_usable.any() else match.notes[0].partition(": ")[0]


def _same_pattern(carried: Carried, scan: Scan, dark: Image | None) -> bool:
    """Return True if the tiles show the references' fine pattern, or if it cannot be decided."""
    newest = -1 if carried.times is None else int(np.argmax(carried.times))
    pattern = _band(carried.images[newest], dark)
    least = max(ALIKE, 4 / float(np.sqrt(pattern[0].size)))  # 4 sigma of unlike noise
    if len(carried) > 1:
        other = carried.images[newest - 1]
        if likeness(pattern, _band(other, dark)) < max(TELLS, least):
            return True
    chosen = spread_indices(len(scan), COMPARED)
    found = [likeness(pattern, _band(scan.tiles[i], dark)) for i in chosen]
    return float(np.median(found)) >= least


def _band(counts: NDArray[np.generic], dark: Image | None) -> tuple[Image, NDArray[np.bool_]]:
    """Fine pattern of one image, and where it is lit, without the edge of the field."""
    values = np.asarray(counts, np.float32)
    if dark is not None:
        values = values - dark
    field = min(FIELD_PX, *values.shape)
    log = log_field(torch.from_numpy(np.ascontiguousarray(values))[None, None], field)[0, 0]
    narrow, wide = (ndimage.uniform_filter(log.numpy(), box, mode="nearest") for box in BAND)
    band = narrow - wide
    middle = np.median(band)
    reach = CLIP * 1.4826 * float(np.median(np.abs(band - middle)))
    lit = log.numpy() - float(log.median()) > np.log(LIT)
    edge = BAND[1] // 2
    lit = ndimage.binary_erosion(lit, iterations=edge, border_value=1)
    inner = np.s_[edge : field - edge, edge : field - edge]
    return np.clip(band[inner], middle - reach, middle + reach), lit[inner]


def likeness(
    one: tuple[Image, NDArray[np.bool_]], other: tuple[Image, NDArray[np.bool_]]
) -> float:
    """Correlation of two patterns where both are lit; 0 where one shows none."""
    both = one[1] & other[1]
    if both.sum() < 100:
        return 0.0
    a, b = (image[both] - image[both].mean() for image in (one[0], other[0]))
    norm = float(np.sqrt(np.dot(a, a) * np.dot(b, b)))
    return float(np.dot(a, b)) / norm if norm > 0 else 0.0
