"""A tile's background as a network tells it blind: how far off it may be, and what is free."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .devices import guard, one_thread
from .tensors import level_of, log_field, network_input, upsample

__all__ = ["Blind", "Prediction", "stated_sd"]

Image = NDArray[np.float32]
USUAL_SD = 0.1  # of a blind background where the card states no error


@dataclass(frozen=True, eq=False)
class Prediction:
    """Backgrounds of tiles with their uncertainty.

    Attributes
    ----------
    log_background : (..., Y, X) float32
        Natural logarithm of what a reference would read, dark removed, at the tile's level.
    log_sd : (..., Y, X) float32
        Natural logarithm of the standard deviation of `log_background`, one scale a tile left
        out: how far the shape may be off. Errors of neighbours are alike. One number for the whole
        tile, from the model's card, where the network states none.
    free : (..., Y, X) float32 or None
        Probability that a pixel is free of sample; None where the network does not tell.
    """

    log_background: Image
    log_sd: Image
    free: Image | None


def stated_sd(card: Mapping[str, Any]) -> float:
    """Standard deviation of the blind log background by a card: its validation error."""
    found = card.get("metrics", {}).get("validation_error_sf", {})
    blind = [found[case] for case in ("none", "simulated-none") if case in found]
    return float(blind[0]) if blind else USUAL_SD


@dataclass(frozen=True, eq=False)
class Blind:
    """Predict tiles one by one without any prior.

    On the CPU one thread works at a tile: the bits do not depend on the number of cores.

    Attributes
    ----------
    outputs : callable
        The network: `(1, 3, F, F)` float32 to `(1, 1 or 3, F, F)`.
    field_px : int
        F.
    device : str
    dark : (Y, X) float32, counts, or None
        Removed from every tile.
    sd : float
        Standard deviation of the log background where the network states none.
    """

    outputs: Callable[[Tensor], Tensor]
    field_px: int
    device: str
    dark: Image | None
    sd: float

    def pixels(self, tiles: NDArray[Any]) -> Prediction:
        """Predict at full size.

        Parameters
        ----------
        tiles : (N, Y, X) counts
            Raw tiles.

        Returns
        -------
        Prediction
            `(N, Y, X)` each.

        Raises
        ------
        DeviceError
            If the device fails.
        """
        size = (tiles.shape[-2], tiles.shape[-1])
        made = [self._fields(tile, lambda f: upsample(f, size), _between(size)) for tile in tiles]
        free = [one.free for one in made if one.free is not None]
        return Prediction(
            np.stack([one.log_background for one in made]),
            np.stack([one.log_sd for one in made]),
            np.stack(free) if free else None,
        )

    def cells(self, tile: NDArray[Any], cell_px: int = 8) -> Prediction:
        """Predict means over square cells.

        Of background and probability; of the variance too, since errors within a cell are alike.

        Parameters
        ----------
        tile : (Y, X) counts
            Raw tile.
        cell_px : int
            Edge of a cell in pixels of the tile; cells begin at its first pixel.

        Returns
        -------
        Prediction
            `(Y // cell_px, X // cell_px)` each; a last cut cell is left out.

        Raises
        ------
        DeviceError
            If the device fails.
        """
        rows, columns = (_shares(n, self.field_px, cell_px).to(self.device) for n in tile.shape)

        def mean(field: Tensor) -> Tensor:
            return rows @ field @ columns.T

        return self._fields(tile, mean, mean)

    @torch.inference_mode()
    def _fields(
        self,
        tile: NDArray[Any],
        background: Callable[[Tensor], Tensor],
        others: Callable[[Tensor], Tensor],
    ) -> Prediction:
        """Outputs for one tile, resampled: the background, variance and probability."""
        raw = np.ascontiguousarray(tile, np.float32)
        if self.dark is not None:
            raw = raw - self.dark
        with guard(self.device), one_thread(self.device):
            log_raw = log_field(torch.from_numpy(raw)[None, None].to(self.device), self.field_px)
            x = network_input(log_raw, None, None)
            output = self.outputs(x.contiguous(memory_format=torch.channels_last))
            log_background = background((output[:, :1] + level_of(log_raw)).contiguous())
            if output.shape[1] == 1:
                log_sd = torch.full_like(log_background, math.log(self.sd))
                return Prediction(_image(log_background), _image(log_sd), None)
            log_sd = 0.5 * others(output[:, 1:2].exp().contiguous()).log()
            free = others(output[:, 2:3].sigmoid().contiguous())
            return Prediction(_image(log_background), _image(log_sd), _image(free))


def _between(size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """Resampling to `(Y, X)` that never leaves the range of the values."""

    def stretched(field: Tensor) -> Tensor:
        if tuple(field.shape[-2:]) == size:
            return field
        return functional.interpolate(field, size, mode="bilinear", align_corners=False)

    return stretched


def _shares(pixels: int, field_px: int, cell_px: int) -> Tensor:
    """`(C, F)` shares of the field's pixels in the mean of each cell along an axis."""
    count, scale = pixels // cell_px, field_px / pixels
    first = torch.arange(count, dtype=torch.float64)[:, None] * cell_px * scale
    at = torch.arange(field_px, dtype=torch.float64)
    overlap = torch.minimum(first + cell_px * scale, at + 1) - torch.maximum(first, at)
    overlap = overlap.clamp_min(0)
    return (overlap / overlap.sum(1, keepdim=True)).float()


def _image(field: Tensor) -> Image:
    out: Image = np.ascontiguousarray(field[0, 0].cpu().numpy(), np.float32)
    return out
