"""The coarse levels of `UNet256` as products of matrices, for CPUs.

Below 16 px nine tenths of the weights meet a few pixels: a convolution there spends its time
on bringing the weights into blocks, at every pass anew. Columns of pixels times the weights as
they lie (im2col; Chellapilla et al. 2006) need no such copy.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn import functional

from napari_txm_bgcorr.models import UNet256

__all__ = ["COARSE", "ConvProduct", "TransposedProduct", "with_products"]

COARSE = 16  # greatest edge in pixels of the finer map of a level that is multiplied


class ConvProduct(nn.Module):
    """A convolution whose input, where it is coarse, becomes columns first."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """`(N, A, Y, X)` to `(N, B, Y / 2, X / 2)`."""
        conv = self.conv
        if x.shape[-1] > COARSE:
            out: Tensor = conv(x)
            return out
        columns = functional.unfold(x, 4, padding=1, stride=2)  # (N, 16 A, L)
        # batch and pixels together are the rows of one product
        out = functional.linear(columns.transpose(1, 2), conv.weight.flatten(1), conv.bias)
        return out.transpose(1, 2).reshape(len(x), -1, x.shape[-2] // 2, x.shape[-1] // 2)


class TransposedProduct(nn.Module):
    """A transposed convolution whose columns, where the output is coarse, are summed up last."""

    def __init__(self, conv: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """`(N, A, Y, X)` to `(N, B, 2 Y, 2 X)`."""
        height, width = 2 * x.shape[-2], 2 * x.shape[-1]
        if self.conv.bias is not None or width > COARSE:
            out: Tensor = self.conv(x)
            return out
        columns = x.flatten(2).transpose(1, 2) @ self.conv.weight.flatten(1)  # (N, L, 16 B)
        return functional.fold(columns.transpose(1, 2), (height, width), 4, padding=1, stride=2)


def with_products(network: UNet256) -> UNet256:
    """Another view of a network, with the very same parameters in the same order."""
    twin = copy.deepcopy(network, {id(p): p for p in network.parameters()})
    twin.down = nn.ModuleList(ConvProduct(conv) for conv in twin.down)  # type: ignore[arg-type]
    twin.up = nn.ModuleList(TransposedProduct(conv) for conv in twin.up)  # type: ignore[arg-type]
    return twin
