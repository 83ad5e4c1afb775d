"""One drift model for all shares of one output: solved once, the others take it over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_txm_bgcorr.backgrounds.drift import DriftModel, restored
from napari_txm_bgcorr.core import SILENT, BackgroundMethod, Progress, Scan, make_provenance
from napari_txm_bgcorr.errors import MethodError, WriteError
from napari_txm_bgcorr.io import scan_record
from napari_txm_bgcorr.io.output import Fit, FitPlace, FitRefusedError
from napari_txm_bgcorr.workflows.config import FIT, CorrectionConfig
from napari_txm_bgcorr.workflows.runners import LocalRunner, Told

__all__ = ["SharedFit", "fit_key"]


class SharedFit(LocalRunner):
    """Corrects in this process, with a drift model that was solved for all shares.

    ``--shard fit`` solves and leaves the solution beside the output, for a job array that
    waits for it. A share that finds none solves for itself, and leaves its own for those that
    start later. Only the drift model reads every tile; other fits are done by each share.

    Parameters
    ----------
    method : BackgroundMethod
        Not fitted.
    out : Path
        Of all shares.
    config : CorrectionConfig
        With a share.
    progress : Progress

    Attributes
    ----------
    place : FitPlace or None
        Of the solution; None where nothing is shared.
    """

    def __init__(
        self,
        method: BackgroundMethod,
        out: Path,
        config: CorrectionConfig,
        progress: Progress = SILENT,
    ) -> None:
        super().__init__(method, progress)
        self._out, self._config = out.absolute(), config
        self.place: FitPlace | None = None

    def fit(self, scans: Sequence[Scan], whole: Scan) -> Told:
        """Take over what was solved for all shares, or solve; see `TileRunner`.

        Raises
        ------
        WriteError
            If it is to be solved for all and cannot be written.
        """
        model = self.method
        if not isinstance(model, DriftModel) or len(scans) > 1:
            return super().fit(scans, whole)
        self.place = place = FitPlace(self._out, fit_key(whole, model, self._config))
        try:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            found = place.read(place.probe())
            if found is not None:
                return self._take_over(model, found, whole, place)
        except FitRefusedError as error:
            self.notes.append(str(error))
        except OSError:
            pass  # the fit cannot be shared here; an unwritable output raises later
        told = super().fit(scans, whole)
        values = {"described": told[0], "provenance": told[1]}
        if model.backgrounds is not None:
            try:
                place.write(Fit(model.backgrounds.arrays(), values))
            except OSError as error:
                if self._config.shard == FIT:
                    raise WriteError(
                        f"{place.path}: {error.strerror or error}; give an output in a folder "
                        "that can be written"
                    ) from error
        return told

    def _take_over(self, model: DriftModel, found: Fit, scan: Scan, place: FitPlace) -> Told:
        try:
            described = dict(found.values["described"])
            provenance = dict(found.values["provenance"])
            self.method = restored(model, found.arrays, described, scan)
        except (MethodError, LookupError, TypeError, ValueError) as error:
            raise FitRefusedError(f"{place.path}: {error}; this share fits for itself") from error
        return described, provenance


def fit_key(scan: Scan, model: DriftModel, config: CorrectionConfig) -> str:
    """Hash over everything that decides what the fit comes to; no dates.

    Parameters
    ----------
    scan : Scan
        Its bytes, references and darks are read.
    model : DriftModel
        Not fitted.
    config : CorrectionConfig
    """
    from napari_txm_bgcorr.backgrounds import LEARNED

    card: Mapping[str, Any] = {}
    if config.method in LEARNED:
        from napari_txm_bgcorr.models import read_card, resolve_model

        card = read_card(resolve_model(config.model))
    # source, method, its parameters, weights, references, darks, versions, device
    asked = make_provenance(scan, model, str(model.describe().get("device", "cpu"))).to_dict()
    taken = {
        name: None if (values := getattr(scan, name)) is None else [str(v) for v in values]
        for name in ("flat_times", "flat_energies_ev", "flat_exposures_s", "flat_monitor")
    }
    content = {
        "asked": {**asked, "date": ""},
        "i0": model.i0,
        "card": card,
        "scan": scan_record(scan),
        "shape": [int(n) for n in scan.tiles.shape],
        "dtype": str(scan.tiles.dtype),
        **taken,
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
