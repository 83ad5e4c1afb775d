"""The generator as a background method: weights stay on the device between tiles."""

from __future__ import annotations

import warnings
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_txm_bgcorr.core.errors import DeviceError, MethodError
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.shapes import CELLS, Coarse, upper
from napari_txm_bgcorr.engine.checkpoint import Model, load_model, resolve_model
from napari_txm_bgcorr.engine.devices import (
    choose_device,
    cpu_cores,
    guard,
    is_out_of_memory,
    one_thread,
)
from napari_txm_bgcorr.engine.prior_error import ASKED, rms_change
from napari_txm_bgcorr.engine.priors import (
    COMPARED,
    Prior,
    blind_error,
    dated,
    log_counts,
    measured,
    predicted_median,
    reference_prior,
    spread_indices,
    tile_median,
    to_empty_level,
    to_prior_level,
)
from napari_txm_bgcorr.engine.tensors import level_of, log_field, median, network_input, upsample

__all__ = ["PRIORS", "Generator", "PriorKind", "release"]

PriorKind = Literal["auto", "none", "reference", "tile-median", "predicted-median"]
PRIORS: tuple[str, ...] = get_args(PriorKind)
ENOUGH_TILES = 5  # for a median over tiles
OLD, UNLIKE = 0.05, 0.4  # expected error from which a difference so large tells of another time
LEFT = 0.75  # of a stale reference's error, in the result that starts from it

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
        ``auto`` (references where there are any, else the median over >= 5 tiles of a mosaic,
        else none; in a mosaic with both, the one expected to be off by less), or one of these
        by name.
    batch : int
        Tiles computed at once on a GPU; halved when memory runs out. CPUs take one tile at a
        time, so that results do not depend on how tiles are grouped.
    precision : {"auto", "fp32", "bf16"}
        ``auto`` is bf16 on CUDA, fp32 elsewhere.

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

    def fit(self, scan: Scan) -> Self:
        """Choose and prepare the prior.

        Raises
        ------
        MethodError
            If the prior asked for is not to be had from this scan.
        """
        self._dark, self._prior, self._last = scan.dark(), None, None
        self._last_cells = self._references = None
        with guard(self.device):
            self._prior = self._choose(scan)
        return self

    def _choose(self, scan: Scan) -> Prior | None:
        kind = self.prior_kind
        if kind == "auto":
            enough = len(scan) >= ENOUGH_TILES
            has_flats = scan.flats is not None and scan.flats.shape[0] > 0
            # The specimen of a tomogram never leaves the field: it stays in a median.
            median = enough and scan.kind != "series"
            kind = "reference" if has_flats else "tile-median" if median else "none"
            if has_flats and enough and scan.kind == "mosaic":
                return self._better(self._reference(scan), tile_median(scan, self._dark), scan)
            if has_flats:
                return self._unless_too_old(self._reference(scan), scan)
        if kind == "none":
            return None
        if kind == "reference":
            return self._reference(scan)
        if len(scan) < 3:
            raise MethodError(
                f"{scan.source.path}: prior {kind} needs 3 tiles or more, there are {len(scan)}; "
                "choose prior none"
            )
        if kind == "tile-median":
            return tile_median(scan, self._dark)
        return predicted_median(scan, self._dark, self._predict_blind, self.workers)

    def candidates(self, scan: Scan) -> dict[str, Generator]:
        """This generator from a mosaic's references and by itself, by the prior's kind.

        See `core.own_backgrounds.CandidateMethod`. Empty where a prior was asked for by name,
        or there is none. A reference knows the levels of single tiles best; next does the
        network by itself: a median over tiles takes the level from what is empty, which
        covered tiles are not. The median's shape is among those that the joint stage takes
        from the tiles in any case.
        """
        if self.prior_kind != "auto" or scan.kind != "mosaic" or self._prior is None:
            return {}
        found: dict[str, Generator] = {}
        if scan.flats is not None and scan.flats.shape[0] > 0:
            reference = self._unless_too_old(self._reference(scan), scan)
            if reference is not None:
                found["reference"] = self._from(reference)
        found["none"] = self._from(None)
        return found

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
        """How much the network would change the prior of tile `i` if it were off by `ASKED`."""
        raw = np.exp(log_counts(scan.tiles[i], self._dark))
        with one_thread(self.device):
            log_raw = log_field(torch.from_numpy(raw)[None, None].to(self.device), self.field_px)
            told = torch.tensor([ASKED], device=self.device)
            x = network_input(log_raw, self._coarse(prior.of(i)), told)
            change = self._forward(x.contiguous(memory_format=torch.channels_last)) - x[:, 1:2]
        return rms_change(change[0, 0].cpu().numpy())

    def _unless_too_old(self, reference: Prior, scan: Scan) -> Prior | None:
        """The reference, or nothing where the network alone is expected to be off by less."""
        if not dated(scan):
            return reference
        expected = float(np.mean([reference.rms(i) for i in range(len(scan))]))
        worse = LEFT * expected > self._blind_error()
        return None if worse or (expected > OLD and self._unlike(reference, scan)) else reference

    def _unlike(self, reference: Prior, scan: Scan) -> bool:
        """Whether the network by itself sees another illumination: it changes no prior so far."""
        differences = []
        for i in spread_indices(len(scan), COMPARED):
            blind = self._predict_blind(log_counts(scan.tiles[i], self._dark))
            differences.append(rms_change(blind - reference.of(i)))
        return float(np.median(differences)) > UNLIKE

    def _blind_error(self) -> float:
        """Error expected without a prior, from the model's card; infinite where it is silent."""
        stated = self.model.card.get("metrics", {}).get("validation_error_sf", {})
        return blind_error(stated if isinstance(stated, dict) else {})

    def _better(self, one: Prior, other: Prior, scan: Scan) -> Prior:
        """The prior that is expected to be off by less, on average over the scan's tiles."""
        errors = [np.mean([prior.rms(i) for i in range(len(scan))]) for prior in (one, other)]
        return one if errors[0] <= errors[1] else other

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
        rms = torch.tensor([self._prior.rms(index)], device=self.device)
        x = network_input(log_raw, self._coarse(layer), rms)
        change = self._forward(x.contiguous(memory_format=torch.channels_last)) - x[:, 1:2]
        cells: Image = known + functional.avg_pool2d(change, over)[0, 0].cpu().numpy()
        if self._prior.kind == "reference":  # as `to_prior_level`
            cells -= np.float32(np.median(change.cpu().numpy()))
            return cells
        coarse = Coarse(raw.shape)
        ratio = coarse.log_cells(raw, None) - cells
        cells += np.float32(upper(ratio, np.ones(coarse.size, bool)))  # as `to_empty_level`
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
            rms = torch.tensor([self._prior.rms(i) for i in places], device=self.device)
        log_background = self._log_background(counts, prior, coarse, rms)[:, 0].cpu().numpy()
        if self._prior is not None and self._prior.kind == "reference":
            to_prior_level(log_background, [self._prior.of(i) for i in places])
        elif self._prior is not None:
            to_empty_level(log_background, stack)
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
        if wanted == "bf16" or (wanted == "auto" and self.device.startswith("cuda")):
            with torch.autocast(torch.device(self.device).type, torch.bfloat16):
                half: Tensor = self._network(x)  # the prior is added in float32
            return half.float()
        out: Tensor = self._network(x)
        return out

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance, JSON-ready."""
        prior = self._prior
        return {
            "model": self.model_name,
            "weights_sha256": self.model.sha256,
            "network": self.model.config.name,
            "device": self.device,
            "precision": self.precision,
            "prior": "none" if prior is None else prior.kind,
            "prior_error": None if prior is None else round(prior.rms(None), 5),
        }


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
