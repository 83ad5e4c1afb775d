"""The generator as a background method: weights stay on the device between tiles."""

from __future__ import annotations

import warnings
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_txm_bgcorr.core.errors import DeviceError, MethodError
from napari_txm_bgcorr.core.reference_matching import match_references, with_matching_references
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.shapes import CELLS, Coarse, upper
from napari_txm_bgcorr.engine.checkpoint import Model, load_model, resolve_model
from napari_txm_bgcorr.engine.devices import (
    choose_device,
    cpu_cores,
    guard,
    has_bf16,
    is_out_of_memory,
    one_thread,
)
from napari_txm_bgcorr.engine.prior_choice import PRIORS, PriorChoice, PriorKind
from napari_txm_bgcorr.engine.prior_error import ASKED, rms_change
from napari_txm_bgcorr.engine.priors import (
    Prior,
    log_counts,
    measured,
    reference_prior,
    to_beam_level,
    to_prior_level,
)
from napari_txm_bgcorr.engine.recall import Recall, recall
from napari_txm_bgcorr.engine.tensors import level_of, log_field, median, network_input, upsample

__all__ = ["PRIORS", "Generator", "PriorKind", "release"]

Image = NDArray[np.float32]


class Generator:
    """Predict the background of each tile with the network.

    Parameters
    ----------
    model : str
        Model's name, weights file, or run folder.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    prior : str
        ``auto`` (references where there are any, the scan's or else those that the model
        carries, else what the tiles of a mosaic share, else none; of a mosaic with both, a
        mixture), or one of these by name.
    batch : int
        Tiles computed at once on a GPU; halved when memory runs out. CPUs take one tile at a
        time, so that results do not depend on how tiles are grouped.
    precision : {"auto", "fp32", "bf16"}
        ``auto`` is bf16 on GPUs that compute in it (NVIDIA Ampere and later), else fp32.

    Raises
    ------
    ModelError, DeviceError, MethodError
        If model, device or prior are unusable.
    """

    name = "generator"

    def __init__(
        self,
        model: str = "default",
        device: str = "auto",
        prior: PriorKind = "auto",
        batch: int = 16,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
    ) -> None:
        if prior not in PRIORS:
            raise MethodError(f"prior {prior!r}: unknown; choose one of {', '.join(PRIORS)}")
        if batch < 1:
            raise MethodError(f"batch {batch}: must be at least 1")
        self.device = choose_device(device)
        path = resolve_model(model)
        self._stamp = (str(path), path.stat().st_mtime_ns, self.device)
        self.model, self._network = _resident(*self._stamp)
        self.model_name, self.prior_kind, self.precision = str(model), prior, precision
        self.batch = 1 if self.device == "cpu" else batch
        # One thread a tile: on a busy machine, threads that share a tile wait for each other,
        # and the bits do not depend on the number of cores.
        self.workers = cpu_cores() if self.device == "cpu" else 1
        self.field_px = self.model.config.field_px
        self._dark: Image | None = None
        self._prior: Prior | None = None
        self._references: Prior | None = None  # their error, once it is estimated
        self._recall: Recall | None = None
        self._mosaic = False
        self._reference_notes: list[str] = []
        self._last: tuple[Image, Tensor] | None = None
        self._last_cells: tuple[Image, Image] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the network: who receives it loads the same weights, or has them already."""
        left_out = ("model", "_network", "_last", "_last_cells")
        return {name: v for name, v in vars(self).items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.model, self._network = _resident(*self._stamp)
        self._last = self._last_cells = None

    @property
    def prior(self) -> Prior | None:
        """What the last fit starts from; None: nothing but the tile itself."""
        return self._prior

    def prepare(self, scan: Scan) -> Self:
        """Look for references; see `core.own_backgrounds.CandidateMethod`."""
        self._dark, self._prior, self._last = scan.dark(), None, None
        self._last_cells = self._references = self._recall = None
        self._mosaic, self._reference_notes = scan.kind == "mosaic", []
        if self.prior_kind in ("auto", "reference"):
            given, wanted = with_matching_references(scan), self.prior_kind == "reference"
            self._recall = recall(given, self.model.references, self._dark, wanted=wanted)
            both = (scan, scan if self._recall is None else self._recall.attach(scan))
            self._reference_notes = [note for one in both for note in match_references(one).notes]
        return self

    def fit(self, scan: Scan) -> Self:
        """Choose and prepare the prior.

        Raises
        ------
        MethodError
            If the prior asked for is not to be had from this scan.
        """
        scan = self.prepare(scan).with_references(scan)
        with guard(self.device):
            self._prior = self._choice(scan).choose(self.prior_kind)
        return self

    def with_references(self, scan: Scan) -> Scan:
        """The scan with the references that match it; see `core.own_references`."""
        attached = scan if self._recall is None else self._recall.attach(scan)
        asked = self.prior_kind in ("auto", "reference")
        return with_matching_references(attached) if asked else scan

    def _choice(self, scan: Scan) -> PriorChoice:
        return PriorChoice(
            scan, self._dark, lambda: self._reference(scan), self._predict_blind,
            self.model.card, self.workers, given=self._recall is None,
        )  # fmt: skip

    def candidates(self, scan: Scan) -> dict[str, Generator]:
        """This generator from a mosaic's references and by itself, by the prior's kind.

        See `core.own_backgrounds.CandidateMethod` and `PriorChoice.candidates`. Empty where a
        prior was asked for by name.
        """
        if self.prior_kind != "auto" or scan.kind != "mosaic":
            return {}
        with guard(self.device):
            offered = self._choice(scan).candidates()
        return {name: self._from(prior) for name, prior in offered.items()}

    def _from(self, prior: Prior | None) -> Generator:
        """A fitted copy with another prior; it shares the network."""
        other = copy(self)
        other._prior, other._last, other._last_cells = prior, None, None
        return other

    def _reference(self, scan: Scan) -> Prior:
        """References, with the error that their age and the network's changes tell."""
        if self._references is None:
            prior = reference_prior(scan, self._dark)
            self._references = measured(prior, scan, lambda i: self._change(scan, prior, i))
        return self._references

    @torch.inference_mode()
    def _change(self, scan: Scan, prior: Prior, i: int) -> float:
        """How much the network would change the prior of tile `i`, were it off by `ASKED`."""
        raw = np.exp(log_counts(scan.tiles[i], self._dark))
        with one_thread(self.device):
            log_raw = log_field(torch.from_numpy(raw)[None, None].to(self.device), self.field_px)
            told = torch.tensor([ASKED], device=self.device)
            x = network_input(log_raw, self._coarse(prior.of(i)), told)
            change = self._forward(x.contiguous(memory_format=torch.channels_last)) - x[:, 1:2]
        return rms_change(change[0, 0].cpu().numpy())

    def _predict_blind(self, log_raw: Image) -> Image:
        """Log background of one log tile `(Y, X)`, without a prior."""
        counts = torch.from_numpy(np.exp(log_raw))[None, None]
        with one_thread(self.device):
            return self._log_background(counts, None, None, None)[0, 0].cpu().numpy()

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Predict backgrounds.

        Parameters
        ----------
        tiles : (N, Y, X) counts
            Raw tiles.
        index : (N,) int or None
            Their places in the fitted scan; None: tiles it does not hold.

        Returns
        -------
        (N, Y, X) float32
            What a reference would read in counts: dark and beam.

        Raises
        ------
        DeviceError
            If the device fails or has too little memory for one tile.
        """
        stack = np.ascontiguousarray(tiles, np.float32)
        if self._dark is not None:
            stack = stack - self._dark
        places: list[int | None] = [None] * len(stack)
        if index is not None:
            places = [int(i) for i in index]
        out = np.empty(stack.shape, np.float32)
        first = 0
        while first < len(stack):
            part = slice(first, first + self.batch)
            done = self._attempt(stack[part], places[part])
            if done is None:
                continue  # with half the batch
            out[part] = done
            first += len(done)
        return out if self._dark is None else out + self._dark

    @torch.inference_mode()
    def background_cells(self, tile: NDArray[Any], index: int, cell_px: int) -> Image | None:
        """Means of a tile's log background over cells; see `core.own_backgrounds.CoarseMethod`.

        The network's answer is averaged on its field instead of being enlarged first.
        """
        (rows, columns), field = tile.shape, self.field_px
        side = rows // CELLS
        # Cells must be whole pixels of the field, and whole multiples of those of `Coarse`.
        if rows != columns or rows % CELLS or field % CELLS or cell_px % side or rows % cell_px:
            return None
        raw = np.asarray(tile, np.float32)
        if self._dark is not None:
            raw = raw - self._dark
        counts = torch.from_numpy(np.ascontiguousarray(raw))[None, None]
        with guard(self.device), one_thread(self.device):
            cells = self._cells(counts, raw, index)
        over = cell_px // side
        count = rows // cell_px
        out: Image = cells.reshape(count, over, count, over).mean(axis=(1, 3))
        return out

    def _cells(self, counts: Tensor, raw: Image, index: int) -> Image:
        """Log background on the cells of `Coarse`, at the level that `_batch` gives it."""
        log_raw = log_field(counts.to(self.device), self.field_px)
        over = self.field_px // CELLS
        if self._prior is None:
            x = network_input(log_raw, None, None)
            predicted = self._forward(x.contiguous(memory_format=torch.channels_last))
            whole = functional.avg_pool2d(predicted + level_of(log_raw), over)
            blind: Image = whole[0, 0].cpu().numpy()
            return blind
        layer = self._prior.of(index)
        known = self._prior_cells(layer)
        rms = torch.tensor([self._prior.told * self._prior.rms(index)], device=self.device)
        x = network_input(log_raw, self._coarse(layer), rms)
        change = self._forward(x.contiguous(memory_format=torch.channels_last)) - x[:, 1:2]
        cells: Image = known + functional.avg_pool2d(change, over)[0, 0].cpu().numpy()
        if self._prior.knows_level:  # as `to_prior_level`
            cells -= np.float32(np.median(change.cpu().numpy()))
            return cells
        coarse = Coarse(raw.shape)
        ratio = coarse.log_cells(raw, None) - cells
        cells += np.float32(upper(ratio, np.ones(coarse.size, bool)))  # as `to_empty_level`
        cells += self._prior.beam_shift(cells - known, index)  # as `to_beam_level`
        return cells

    def _attempt(self, stack: Image, places: list[int | None]) -> Image | None:
        """One batch; None after halving the batch because memory ran out."""
        try:
            with guard(self.device), one_thread(self.device):
                return self._batch(stack, places)
        except DeviceError as error:
            cause = error.__cause__
            if self.batch == 1 or cause is None or not is_out_of_memory(cause):
                raise
        self.batch = max(1, self.batch // 2)
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        warnings.warn(
            f"device {self.device}: out of memory; going on with {self.batch} tiles at once",
            RuntimeWarning,
            stacklevel=3,
        )
        return None

    @torch.inference_mode()
    def _batch(self, stack: Image, places: list[int | None]) -> Image:
        counts = torch.from_numpy(stack)[:, None].to(self.device)
        prior, coarse, rms = None, None, None
        if self._prior is not None:
            layers = [self._prior.of(i) for i in places]
            full = layers[0][None] if len(layers) == 1 else np.stack(layers)
            prior = torch.from_numpy(full)[:, None].to(self.device)
            coarse = torch.cat([self._coarse(layer) for layer in layers])
            told = self._prior.told
            rms = torch.tensor([told * self._prior.rms(i) for i in places], device=self.device)
        log_background = self._log_background(counts, prior, coarse, rms)[:, 0].cpu().numpy()
        if self._prior is not None and self._prior.knows_level:
            to_prior_level(log_background, [self._prior.of(i) for i in places])
        elif self._prior is not None:
            to_beam_level(log_background, stack, self._prior, places)
        out: Image = np.exp(log_background, out=log_background)
        return out

    def _coarse(self, layer: Image) -> Tensor:
        """Prior on the network's field; the last one is kept, since most scans share one."""
        last = self._last  # another thread may replace it at any time
        if last is None or last[0] is not layer:
            counts = torch.from_numpy(np.exp(layer))[None, None]
            last = self._last = (layer, log_field(counts, self.field_px).to(self.device))
        return last[1]

    def _prior_cells(self, layer: Image) -> Image:
        """Prior on the cells of `Coarse`, kept likewise."""
        last = self._last_cells
        if last is None or last[0] is not layer:
            last = self._last_cells = (layer, Coarse(layer.shape).mean(layer))
        return last[1]

    @torch.inference_mode()
    def _log_background(
        self,
        counts: Tensor,
        log_prior: Tensor | None,
        coarse: Tensor | None,
        rms: Tensor | None,
    ) -> Tensor:
        """`(N, 1, Y, X)` counts to the log background of the same size.

        The prior comes at full size and on the field, `(N, 1, F, F)`, both log counts.
        """
        size = (counts.shape[-2], counts.shape[-1])
        log_raw = log_field(counts.to(self.device), self.field_px)
        x = network_input(log_raw, coarse, rms)
        predicted = self._forward(x.contiguous(memory_format=torch.channels_last))
        if log_prior is None or coarse is None:
            return upsample(predicted + level_of(log_raw), size)
        shift = median(log_raw - coarse)  # of the prior to this tile's level
        return log_prior + upsample(predicted - x[:, 1:2], size) + shift

    def _forward(self, x: Tensor) -> Tensor:
        wanted = self.precision
        if wanted == "bf16" or (wanted == "auto" and has_bf16(self.device)):
            with torch.autocast(torch.device(self.device).type, torch.bfloat16):
                half: Tensor = self._network(x)  # the prior is added in float32
            return half.float()
        out: Tensor = self._network(x)
        return out

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance, JSON-ready."""
        prior, recalled = self._prior, self._recall
        found: dict[str, Any] = {
            "model": self.model_name,
            "weights_sha256": self.model.sha256,
            "network": self.model.config.name,
            "device": self.device,
            "precision": self.precision,
            "prior": "none" if prior is None else prior.kind,
            "prior_error": None if prior is None else round(prior.rms(None), 5),
        }
        if recalled is not None:
            found |= recalled.describe(prior, self._mosaic)
        notes = list(dict.fromkeys([*found.pop("notes", ()), *self._reference_notes]))
        return found | {"notes": notes} if notes else found


@lru_cache(maxsize=2)
def _resident(path: str, modified_ns: int, device: str) -> tuple[Model, nn.Module]:
    """Load a model onto a device once."""
    model = load_model(Path(path))
    with guard(device):
        network = model.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model, network.requires_grad_(False)


def release() -> None:
    """Forget the resident weights, so that the device's memory comes back."""
    _resident.cache_clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
