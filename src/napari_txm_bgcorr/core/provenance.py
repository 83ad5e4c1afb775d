"""Record of the input, method and options of a result; refusal to correct twice."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_txm_bgcorr.errors import AlreadyCorrectedError, ReadError

from .scan import Scan
from .tile_array import TileArray

if TYPE_CHECKING:
    from .background_method import BackgroundMethod

__all__ = ["PACKAGES", "Provenance", "make_provenance", "pixels_sha256", "refuse_if_corrected"]

PACKAGES = ("napari-txm-bgcorr", "numpy", "scipy", "torch", "monai")


@dataclass(frozen=True)
class Provenance:
    """Record of how a result was made.

    Attributes
    ----------
    source_path : str
        Absolute where it is a file or folder.
    source_sha256 : str or None
        Of the bytes of the source; None where it is no file (simulated, a layer).
    source_format : str
    method : str
        Row of the method table.
    parameters : dict
        What the method says about itself, JSON-ready.
    weights_sha256 : str or None
        Of a learned method.
    flats_sha256, darks_sha256 : str or None
        Of the pixels of the references and darks at hand, wherever they came from; None: none.
    versions : dict
        Of this program and of what it computes with.
    device : str
    date : str
        UTC, ISO 8601, to the second.
    config : dict
        Options that repeat the correction (`workflows.CorrectionConfig`); empty: not known.
    command : str
        Command line that repeats it; empty: not known.
    """

    source_path: str
    source_sha256: str | None
    source_format: str
    method: str
    parameters: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str | None = None
    flats_sha256: str | None = None
    darks_sha256: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    date: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    command: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from `to_dict`; what later versions added is left out.

        Raises
        ------
        ReadError
            If a field without a default is missing.
        """
        known = {f.name for f in fields(cls)}
        try:
            return cls(**{key: value for key, value in values.items() if key in known})
        except TypeError as error:
            raise ReadError(
                f"provenance: {error}; the file was altered or made by another program"
            ) from error


def make_provenance(scan: Scan, method: BackgroundMethod, device: str = "cpu") -> Provenance:
    """Describe a run of a fitted method over a scan, now.

    Parameters
    ----------
    scan : Scan
    method : BackgroundMethod
    device : str
        What it runs on.
    """
    parameters = method.describe()
    return Provenance(
        source_path=str(scan.source.path.absolute() if scan.source.files else scan.source.path),
        source_sha256=scan.source.sha256 if scan.source.files else None,
        source_format=scan.source.format,
        method=method.name,
        parameters=parameters,
        weights_sha256=parameters.get("weights_sha256"),
        flats_sha256=pixels_sha256(scan.flats),
        darks_sha256=pixels_sha256(scan.darks),
        versions=_versions(),
        device=device,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def pixels_sha256(stack: TileArray | None) -> str | None:
    """Hash over type, size and pixels of images, read one by one."""
    if stack is None or stack.shape[0] == 0:
        return None
    total = hashlib.sha256(f"{stack.dtype.str} {tuple(stack.shape)}".encode())
    for i in range(stack.shape[0]):
        total.update(np.ascontiguousarray(stack[i]).data)
    return total.hexdigest()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # torch and monai may be absent where only classical methods run
    return found


def refuse_if_corrected(scan: Scan, force: bool = False) -> None:
    """Guard against dividing twice.

    Raises
    ------
    AlreadyCorrectedError
        If the scan is a corrected result of this program and `force` is not set.
    """
    if scan.provenance is None or force:
        return
    if scan.provenance.get("stitched"):
        raise AlreadyCorrectedError(
            f"{scan.source.path}: a stitched mosaic, its tiles cannot be told apart; "
            f"give the raw tiles ({scan.provenance.get('source_path', 'unknown')})"
        )
    method = scan.provenance.get("method", "an unknown method")
    raise AlreadyCorrectedError(
        f"{scan.source.path}: already corrected with {method}; give the raw data, or force it"
    )
