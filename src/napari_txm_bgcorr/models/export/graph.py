"""A model as one graph from raw counts to background counts, for ONNX.

The graph holds what `backgrounds.Generator` does round the network, so that another program feeds
counts of any size and gets counts back. ONNX knows neither area averages of sizes unknown
beforehand, nor medians: the first are products with matrices made from the sizes, the second
sorted values.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from napari_txm_bgcorr.models.tensors import FLOOR, despike, staleness_value

__all__ = ["BlindBackground", "CountsToBackground"]

CUBIC = -0.75  # the constant of torch's bicubic resampling


class CountsToBackground(nn.Module):
    """Counts, a prior and its expected error to the background.

    Parameters
    ----------
    network : Module
        `(N, 3, F, F)` to `(N, 1, F, F)`.
    field_px : int
        F.
    """

    def __init__(self, network: nn.Module, field_px: int) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().float().eval()
        self.field_px = field_px
        self.eval()

    def forward(self, counts: Tensor, prior: Tensor, prior_error: Tensor) -> Tensor:
        """Predict.

        Parameters
        ----------
        counts : (N, 1, Y, X) float32
            Raw counts, dark removed where it is known.
        prior : (N, 1, Y, X) float32, counts
            Reference in the same way; anything where there is none.
        prior_error : (N,) float32
            Expected scale-free rms of its logarithm (0.02 is 2 %); negative: no prior.

        Returns
        -------
        (N, 1, Y, X) float32
            Background in counts.
        """
        there = (prior_error >= 0).to(counts.dtype).view(-1, 1, 1, 1)
        height, width = counts.shape[-2], counts.shape[-1]
        log_raw = _log_field(counts, self.field_px)
        level = _median(log_raw)
        usable = prior * there + (1 - there)
        fine = _log_floored(_finite(usable))
        coarse = _log_field(fine.exp(), self.field_px)
        shift = _median(log_raw - coarse)
        stale = staleness_value(prior_error).view(-1, 1, 1, 1) * there
        first = (coarse + shift - level) * there
        x = torch.cat([log_raw - level, first, stale.expand_as(log_raw)], dim=1)
        predicted = self.network(x)[:, :1]
        start = (fine + shift) * there + level * (1 - there)
        log_background: Tensor = start + _cubic(predicted - first, height, width)
        return log_background.exp()


class BlindBackground(nn.Module):
    """`CountsToBackground` without a prior: one image in, one image out."""

    def __init__(self, network: nn.Module, field_px: int) -> None:
        super().__init__()
        self.inner = CountsToBackground(network, field_px)
        self.eval()

    def forward(self, counts: Tensor) -> Tensor:
        """`(N, 1, Y, X)` raw counts to background counts."""
        none = counts[:, 0, 0, 0] * 0 - 1
        out: Tensor = self.inner(counts, counts, torch.nan_to_num(none, nan=-1.0))
        return out


def _finite(counts: Tensor) -> Tensor:
    return torch.where(counts.abs() < torch.inf, counts, torch.zeros_like(counts))


def _median(x: Tensor) -> Tensor:
    """`tensors.median`: the lower of two middle values, from every fourth pixel."""
    values = x[..., ::2, ::2].flatten(1).sort(dim=1).values
    return values[:, (values.shape[1] - 1) // 2].view(-1, 1, 1, 1)


def _log_floored(counts: Tensor) -> Tensor:
    clean = despike(counts)
    return torch.log(torch.maximum(clean, (FLOOR * _median(clean)).clamp_min(1e-3)))


def _log_field(counts: Tensor, edge: int) -> Tensor:
    """`tensors.log_field` for sizes known only when it runs."""
    clean = despike(_finite(counts))
    height, width = counts.shape[-2], counts.shape[-1]
    rows, columns = torch.arange(height), torch.arange(width)
    large = ((rows.shape[0] >= edge) * torch.ones(())) * (columns.shape[0] >= edge)
    down = _to_field(rows, edge, large)
    across = _to_field(columns, edge, large)
    clean = down @ clean @ across.T
    return torch.log(torch.maximum(clean, (FLOOR * _median(clean)).clamp_min(1e-3)))


def _to_field(pixel: Tensor, edge: int, large: Tensor) -> Tensor:
    """`(edge, n)` weights: area average where the tile is large, else bilinear enlargement."""
    count = torch.ones_like(pixel).sum()
    cell = torch.arange(edge)[:, None]
    first = (cell * count) // edge
    end = ((cell + 1) * count + edge - 1) // edge
    inside = ((pixel >= first) & (pixel < end)).float()
    area = inside / inside.sum(1, keepdim=True)
    at = ((cell.float() + 0.5) * count.float() / edge - 0.5).clamp_min(0)
    at = torch.minimum(at, (count - 1).float())
    bilinear = (1 - (at - pixel.float()).abs()).clamp_min(0)
    return torch.where(large > 0, area, bilinear)


def _cubic(field: Tensor, height: int, width: int) -> Tensor:
    """Bicubic resampling to `(Y, X)`, as `tensors.upsample` does."""
    edge = field.shape[-1]
    return _cubic_weights(height, edge) @ field @ _cubic_weights(width, edge).T


def _cubic_weights(count: int, edge: int) -> Tensor:
    """`(count, edge)` weights of Keys' cubic convolution (1981), edge pixels repeated."""
    pixel = torch.arange(count).float()[:, None]
    at = (pixel + 0.5) * (edge / count) - 0.5
    base = at.floor()
    cell = torch.arange(edge).float()
    weights = torch.zeros_like(at) * cell
    for tap in (-1, 0, 1, 2):
        place = (base + tap).clamp(0, edge - 1)
        weight = _keys((at - base - tap).abs())
        weights = weights + weight * (place == cell).float()
    return weights


def _keys(distance: Tensor) -> Tensor:
    near = ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1
    far = ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0 * distance))
