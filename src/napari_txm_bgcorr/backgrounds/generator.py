"""The generator as a background method: weights stay on the device between tiles."""

from __future__ import annotations

import warnings
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_txm_bgcorr.core import SILENT, Progress, Scan, TilePrediction, cpu_cores
from napari_txm_bgcorr.errors import DeviceError, MethodError
from napari_txm_bgcorr.models import (
    Blind,
    Prediction,
    choose_device,
    guard,
    has_bf16,
    is_out_of_memory,
    level_of,
    log_field,
    network_input,
    one_thread,
    release,
    resident,
    resolve_model,
    stated_sd,
    upsample,
)

__all__ = ["Generator", "Prediction", "release"]

Image = NDArray[np.float32]


class Generator:
    """Predict the background of each tile with the network, from the tile alone.

    Parameters
    ----------
    model : str
        Model's name, weights file, or run folder.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    batch : int
        Tiles computed at once on a GPU; halved when memory runs out. CPUs take one tile at a
        time, so that results do not depend on how tiles are grouped.
    precision : {"auto", "fp32", "bf16"}
        ``auto`` is bf16 on GPUs that compute in it (NVIDIA Ampere and later), else fp32.

    Raises
    ------
    ModelError, DeviceError, MethodError
        If model or device are unusable.
    """

    name = "generator"

    def __init__(
        self,
        model: str = "default",
        device: str = "auto",
        batch: int = 16,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
    ) -> None:
        if batch < 1:
            raise MethodError(f"batch {batch}: must be at least 1")
        self.device = choose_device(device)
        path = resolve_model(model)
        self._stamp = (str(path), path.stat().st_mtime_ns, self.device)
        self.model, self._network = resident(*self._stamp)
        self.model_name, self.precision = str(model), precision
        self.batch = 1 if self.device == "cpu" else batch
        # One thread a tile: on a busy machine, threads that share a tile wait for each other,
        # and the bits do not depend on the number of cores.
        self.workers = cpu_cores() if self.device == "cpu" else 1
        self.field_px = self.model.config.field_px
        self._dark: Image | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the network: the receiving process loads the same weights itself."""
        return {name: v for name, v in vars(self).items() if name not in ("model", "_network")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.model, self._network = resident(*self._stamp)

    def fit(self, scan: Scan, progress: Progress = SILENT) -> Self:
        """Keep the dark."""
        progress.check()
        self._dark = scan.dark()
        return self

    def predict(self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None) -> Prediction:
        """Backgrounds without any prior, their uncertainty, free pixels; see `Blind.pixels`."""
        return self._blind().pixels(tiles)

    def predict_cells(self, tile: NDArray[Any], cell_px: int = 8) -> Prediction:
        """`predict` of one tile `(Y, X)` as means over cells; see `Blind.cells`."""
        return self._blind().cells(tile, cell_px)

    def _blind(self) -> Blind:
        sd = stated_sd(self.model.card)
        return Blind(self._outputs, self.field_px, self.device, self._dark, sd)

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Predict backgrounds.

        Parameters
        ----------
        tiles : (N, Y, X) counts
            Raw tiles.
        index : (N,) int or None
            Not looked at.

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
        out = np.empty(stack.shape, np.float32)
        first = 0
        while first < len(stack):
            part = slice(first, first + self.batch)
            done = self._attempt(stack[part])
            if done is None:
                continue  # with half the batch
            out[part] = done
            first += len(done)
        return out if self._dark is None else out + self._dark

    def predict_tiles(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> TilePrediction:
        """Backgrounds, and of a probabilistic network what is free and how far off they may be."""
        if not self.model.config.probabilistic:
            return TilePrediction(self.background(tiles, index))
        told = self.predict(tiles)
        out = np.exp(told.log_background)
        if self._dark is not None:
            out += self._dark
        return TilePrediction(out, told.free, np.exp(told.log_sd))

    def _attempt(self, stack: Image) -> Image | None:
        """One batch; None after halving the batch because memory ran out."""
        try:
            with guard(self.device), one_thread(self.device):
                return self._batch(stack)
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
    def _batch(self, stack: Image) -> Image:
        counts = torch.from_numpy(stack)[:, None].to(self.device)
        size = (counts.shape[-2], counts.shape[-1])
        log_raw = log_field(counts, self.field_px)
        x = network_input(log_raw, None, None)
        predicted = self._outputs(x.contiguous(memory_format=torch.channels_last))[:, :1]
        log_background = upsample(predicted + level_of(log_raw), size)[:, 0].cpu().numpy()
        out: Image = np.exp(log_background, out=log_background)
        return out

    def _outputs(self, x: Tensor) -> Tensor:
        wanted = self.precision
        if wanted == "bf16" or (wanted == "auto" and has_bf16(self.device)):
            with torch.autocast(torch.device(self.device).type, torch.bfloat16):
                half: Tensor = self._network(x)
            return half.float()
        out: Tensor = self._network(x)
        return out

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance, JSON-ready."""
        return {
            "model": self.model_name,
            "weights_sha256": self.model.sha256,
            "network": self.model.config.name,
            "device": self.device,
            "precision": self.precision,
        }
