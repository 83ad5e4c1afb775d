"""One drift model for all shares of one output: the first solves it, the others take it over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import typer

from napari_txm_bgcorr.backgrounds.drift.model import DriftModel
from napari_txm_bgcorr.backgrounds.drift.restored import restored
from napari_txm_bgcorr.core.correction import BackgroundMethod
from napari_txm_bgcorr.core.provenance import make_provenance
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.errors import MethodError
from napari_txm_bgcorr.io.output.fit_file import Fit, FitPlace, FitRefusedError
from napari_txm_bgcorr.io.record import scan_record

from .config import CorrectOptions
from .correct import Here
from .shards import parse_shard
from .turns import PACE, Pace, Turn

__all__ = ["SharedFit", "fit_key"]

Told = tuple[dict[str, Any], dict[str, Any]]  # description, provenance


class SharedFit(Here):
    """Corrects in this process, with a drift model that one share of the output has solved.

    Only the drift model reads every tile; other fits are done by each share. Where the folder
    of the output cannot be written, or a file there is not believed, this share solves, too.

    Parameters
    ----------
    method : BackgroundMethod
        Not fitted.
    out : Path
        Of all shares.
    options : CorrectOptions
        With a share.
    pace : Pace
    """

    def __init__(
        self, method: BackgroundMethod, out: Path, options: CorrectOptions, pace: Pace = PACE
    ) -> None:
        super().__init__(method, quiet=options.quiet)
        self._out, self._options, self._pace = out.absolute(), options, pace
        share = parse_shard(str(options.shard))
        self._number = 0 if share is None else share[0]

    def fit(self, scans: Sequence[Scan], whole: Scan) -> Told:
        """Take over what another share has fitted, or fit for all; see `Runner`."""
        joint = self.method
        if not isinstance(joint, DriftModel) or len(scans) > 1:
            return super().fit(scans, whole)
        place = FitPlace(self._out, fit_key(whole, joint, self._options))
        with ExitStack() as stack:
            try:
                self._out.parent.mkdir(parents=True, exist_ok=True)
                turn = stack.enter_context(Turn(place, self._number, self._pace))
                found = self._look(place, turn)
                if found is not None:
                    return self._take_over(joint, found, whole, place)
            except FitRefusedError as error:
                typer.echo(f"warning: {error}", err=True)
            except OSError:
                pass  # nothing can be shared here; whether the output can be written is told later
            told = super().fit(scans, whole)
            values = {"described": told[0], "provenance": told[1]}
            if joint.backgrounds is not None:
                with suppress(OSError):
                    place.write(Fit(joint.backgrounds.arrays(), values))
        return told

    def _look(self, place: FitPlace, turn: Turn) -> Fit | None:
        """Wait for another share's fit; None: it is this one's turn to fit."""
        mine = said = False
        while True:
            found = place.read(place.probe())
            if found is not None or mine:
                return found
            mine = turn.take()  # and then look again: another may have ended just now
            if mine:
                continue
            if not said and (self._options.told or not self.quiet):
                typer.echo(
                    f"waiting: share {turn.worker} solves the drift model of {self._out.name} "
                    "for all shares",
                    err=True,
                )
            said = True
            turn.wait()

    def _take_over(self, joint: DriftModel, found: Fit, scan: Scan, place: FitPlace) -> Told:
        try:
            described = dict(found.values["described"])
            provenance = dict(found.values["provenance"])
            self.method = restored(joint, found.arrays, described, scan)
        except (MethodError, LookupError, TypeError, ValueError) as error:
            raise FitRefusedError(f"{place.path}: {error}; this share fits for itself") from error
        return described, provenance


def fit_key(scan: Scan, joint: DriftModel, options: CorrectOptions) -> str:
    """Hash over everything that decides what the fit comes to; no dates.

    Parameters
    ----------
    scan : Scan
        Its bytes, references and darks are read.
    joint : DriftModel
        Not fitted.
    options : CorrectOptions
    """
    from napari_txm_bgcorr.backgrounds.registry import LEARNED

    card: Mapping[str, Any] = {}
    if options.method in LEARNED:
        from napari_txm_bgcorr.models.checkpoint import read_card, resolve_model

        card = read_card(resolve_model(options.model))
    # source, method, its parameters, weights, references, darks, versions, device
    asked = make_provenance(scan, joint, str(joint.describe().get("device", "cpu"))).to_dict()
    taken = {
        name: None if (values := getattr(scan, name)) is None else [str(v) for v in values]
        for name in ("flat_times", "flat_energies_ev", "flat_exposures_s", "flat_monitor")
    }
    content = {
        "asked": {**asked, "date": ""},
        "i0": joint.i0,
        "card": card,
        "scan": scan_record(scan),
        "shape": [int(n) for n in scan.tiles.shape],
        "dtype": str(scan.tiles.dtype),
        **taken,
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
