"""Generators and the discriminator by name.

Every generator takes `(N, 3, F, F)` float32 (`tensors.py`: log counts less their median, the
prior, the staleness), and gives `(N, 1, F, F)`: the log background less the same median, as
the prior plus what the network adds. A probabilistic one gives `(N, 3, F, F)`: after the
background its log-variance, and the logit of the probability to be free of sample.

MONAI is imported by the networks that come from it alone: it takes seconds, and the shipped model
needs none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_txm_bgcorr.errors import ConfigError

from .network_config import NetworkConfig
from .tensors import LEAST_SD, expected_rms

__all__ = [
    "IN_CHANNELS",
    "NETWORKS",
    "PriorResidual",
    "SubPixel",
    "SubPixelUNet",
    "UNet256",
    "build_discriminator",
    "build_generator",
    "count_parameters",
]

IN_CHANNELS = 3  # raw, prior, staleness
FULL_CORRECTION = 0.1  # expected error of a prior that deserves a correction in full
FIRST_SD = 0.05  # standard deviation that an untrained probabilistic network states, blind


class ResidualBlock(nn.Module):
    """``x + conv(silu(conv(norm(x))))``: the stream itself is never normalised.

    So absolute amplitudes, the constant staleness and the coordinates survive, which an
    instance norm on the stream would erase. The second convolution starts at zero.
    """

    def __init__(self, channels: int, groups: int = 4) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, Y, X)` to the same shape."""
        out: Tensor = x + self.second(functional.silu(self.first(self.norm(x)), inplace=True))
        return out


class ResidualUNet(nn.Module):
    """U-Net of residual blocks; the finest level has its block on the way up only.

    Parameters
    ----------
    in_channels, out_channels : int
    features : tuple of int
        Channels per level, finest first; each level halves the size.
    """

    def __init__(self, in_channels: int, out_channels: int, features: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(pairwise(features))
        self.stem = nn.Conv2d(in_channels, features[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.encode = nn.ModuleList(ResidualBlock(b) for _, b in pairs)
        self.bottom = ResidualBlock(features[-1])
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in reversed(pairs))
        self.decode = nn.ModuleList(ResidualBlock(a) for a, _ in reversed(pairs))
        self.head = nn.Conv2d(features[0], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in, Y, X)` to `(N, out, Y, X)`."""
        x = self.stem(x)
        skips = []
        for down, encode in zip(self.down, self.encode, strict=True):
            skips.append(x)
            x = encode(down(x))
        x = self.bottom(x)
        for up, decode in zip(self.up, self.decode, strict=True):
            skip = skips.pop()
            x = decode(functional.interpolate(up(x), skip.shape[-2:], mode="nearest") + skip)
        out: Tensor = self.head(x)
        return out


class SubPixel(nn.Module):
    """Run a body at reduced size: n x n pixels become channels, and back (Shi et al. 2016).

    Two constant coordinate channels are appended, since the illumination is a pattern of the
    whole field fixed to the camera and not translation invariant.

    Parameters
    ----------
    body : Module
        Takes ``factor**2 * 3 + 2`` channels at reduced size and gives ``factor**2`` an output.
    factor : int
        How many times smaller.
    """

    def __init__(self, body: nn.Module, factor: int = 2) -> None:
        super().__init__()
        self.body = body
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """`(N, 3, Y, X)` to `(N, outputs, Y, X)`; Y and X multiples of the factor."""
        small = functional.pixel_unshuffle(x, self.factor)
        joined = torch.cat([small, _coordinates(small)], dim=1)
        return functional.pixel_shuffle(self.body(joined), self.factor)


def _coordinates(x: Tensor) -> Tensor:
    """`(N, 2, Y, X)`: y and x from -1 to 1."""
    y = torch.linspace(-1, 1, x.shape[-2], device=x.device, dtype=x.dtype)
    z = torch.linspace(-1, 1, x.shape[-1], device=x.device, dtype=x.dtype)
    grid = torch.stack(torch.meshgrid(y, z, indexing="ij"))
    return grid.expand(x.shape[0], -1, -1, -1)


class SubPixelUNet(SubPixel):
    """The default body inside `SubPixel`."""

    def __init__(self, features: tuple[int, ...], factor: int = 2, outputs: int = 1) -> None:
        cells = factor**2
        body = ResidualUNet(cells * IN_CHANNELS + 2, cells * outputs, features)
        super().__init__(body, factor)


class UNet256(nn.Module):
    """Generator of pix2pix (Isola et al. 2017, appendix 6.1): 8 halvings of a 256 px field.

    54.4 M parameters with ``ngf`` 64. Differences: linear output, instance norm instead of
    batch statistics, no dropout.
    """

    def __init__(
        self, ngf: int = 64, in_channels: int = IN_CHANNELS, depth: int = 8, outputs: int = 1
    ) -> None:
        super().__init__()
        wide = [ngf * min(2**k, 8) for k in range(depth)]  # 64 128 256 512 512 512 512 512
        into = [in_channels, *wide[:-1]]
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 4, 2, 1, bias=k in (0, depth - 1))
            for k, (a, b) in enumerate(zip(into, wide, strict=True))
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(
                wide[k] * (1 if k == depth - 1 else 2),
                outputs if k == 0 else wide[k - 1],
                4,
                2,
                1,
                bias=k == 0,
            )
            for k in reversed(range(depth))
        )
        # the innermost map is 1 x 1, where an instance norm would erase everything
        self.down_norm = nn.ModuleList(
            nn.InstanceNorm2d(wide[k], affine=True) if 0 < k < depth - 1 else nn.Identity()
            for k in range(depth)
        )
        self.up_norm = nn.ModuleList(
            nn.InstanceNorm2d(wide[k - 1], affine=True) if k else nn.Identity()
            for k in reversed(range(depth))
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(N, 3, Y, X)` to `(N, outputs, Y, X)`; Y and X multiples of ``2 ** depth``."""
        skips: list[Tensor] = []
        for k, (conv, norm) in enumerate(zip(self.down, self.down_norm, strict=True)):
            x = norm(conv(functional.leaky_relu(x, 0.2) if k else x))
            skips.append(x)
        x = skips.pop()
        for k, (conv, norm) in enumerate(zip(self.up, self.up_norm, strict=True)):
            x = norm(conv(functional.relu(torch.cat([x, skips.pop()], 1) if k else x)))
        return x


class PriorResidual(nn.Module):
    """Wrap a body so that its output is the prior plus a correction.

    Parameters
    ----------
    body : Module
        `(N, 3, Y, X)` to `(N, 1, Y, X)`, or to 3 channels: correction, log of the standard
        deviation over that of an untrained network, logit of free of sample.
    multiple : int
        Y and X must be multiples of it; smaller inputs are padded at the far edges and cut
        again, so that odd sizes work.
    scaled : bool
        Measure the correction to a prior in units of `FULL_CORRECTION` of its expected error,
        so that a prior that is already good is hardly touched. Without a prior the unit is 1.
    """

    def __init__(self, body: nn.Module, multiple: int, scaled: bool = False) -> None:
        super().__init__()
        self.body = body
        self.multiple = multiple
        self.scaled = scaled

    def forward(self, x: Tensor) -> Tensor:
        """`(N, 3, Y, X)` to the log background less the median of the log raw, `(N, 1, Y, X)`.

        Two more channels of a probabilistic network: its log-variance, the logit.
        """
        height, width = x.shape[-2:]
        pad = (-width % self.multiple, -height % self.multiple)
        padded = functional.pad(x, (0, pad[0], 0, pad[1]), mode="replicate") if any(pad) else x
        made: Tensor = self.body(padded)[..., :height, :width]
        unit = torch.ones_like(x[:, 2:3, :1, :1])
        if self.scaled:
            unit = (expected_rms(x[:, 2:3, :1, :1]) / FULL_CORRECTION).clamp(0.01, 1.0)
        background = x[:, 1:2] + made[:, :1] * unit
        if made.shape[1] == 1:
            return background
        log_sd = (made[:, 1:2] + (FIRST_SD * unit).log()).clamp(math.log(LEAST_SD), 0.0)
        return torch.cat([background, 2 * log_sd, made[:, 2:]], dim=1)


def _outputs(config: NetworkConfig) -> int:
    return 3 if config.probabilistic else 1


def _subpixel(config: NetworkConfig) -> nn.Module:
    features = config.features or (32, 48, 80, 128, 192)
    return PriorResidual(SubPixelUNet(features, 2, _outputs(config)), 2 ** len(features))


def _subpixel4(config: NetworkConfig) -> nn.Module:
    features = config.features or (72, 96, 128, 192)
    body = SubPixelUNet(features, 4, _outputs(config))
    return PriorResidual(body, 2 ** (len(features) + 1))


def _subpixel_basic(config: NetworkConfig) -> nn.Module:
    from monai.networks.nets import BasicUNet

    features = config.features or (32, 48, 96, 160, 192, 32)
    norm = ("group", {"num_groups": 4})
    body = BasicUNet(2, 4 * IN_CHANNELS + 2, 4 * _outputs(config), features, norm=norm)
    return PriorResidual(SubPixel(body), 32)


def _unet256(config: NetworkConfig) -> nn.Module:
    return PriorResidual(UNet256(config.ngf, outputs=_outputs(config)), 256)


def _basic(config: NetworkConfig) -> nn.Module:
    from monai.networks.nets import BasicUNet

    features = config.features or (32, 32, 64, 128, 256, 32)
    norm = ("group", {"num_groups": 4})
    body = BasicUNet(2, IN_CHANNELS, _outputs(config), features, norm=norm)
    return PriorResidual(body, 16)


def _residual(config: NetworkConfig) -> nn.Module:
    from monai.networks.nets import UNet

    features = config.features or (32, 64, 128, 256, 256)
    strides = (2,) * (len(features) - 1)
    norm = ("group", {"num_groups": 1})
    body = UNet(2, IN_CHANNELS, features[0], features, strides, num_res_units=2, norm=norm)
    # its last unit is residual and so no layer that could start at zero
    head = nn.Conv2d(features[0], _outputs(config), 1)
    return PriorResidual(nn.Sequential(body, head), 2 ** len(strides))


def _attention(config: NetworkConfig) -> nn.Module:
    from monai.networks.nets import AttentionUnet

    features = config.features or (32, 64, 128, 256)
    strides = (2,) * (len(features) - 1)
    body = AttentionUnet(2, IN_CHANNELS, _outputs(config), features, strides)
    _without_batch_statistics(body)
    return PriorResidual(body, 2 ** len(strides))


def _without_batch_statistics(network: nn.Module) -> None:
    """Put a group norm where a network of MONAI fixes batch norm, which mixes tiles."""
    for name, inner in list(network.named_children()):
        if isinstance(inner, nn.BatchNorm2d):
            groups = math.gcd(4, inner.num_features)
            setattr(network, name, nn.GroupNorm(groups, inner.num_features))
        else:
            _without_batch_statistics(inner)


def _dynamic(config: NetworkConfig) -> nn.Module:
    from monai.networks.nets import DynUNet

    features = config.features or (32, 64, 128, 256, 320)
    kernels, strides = [3] * len(features), [1] + [2] * (len(features) - 1)
    norm = ("group", {"num_groups": 4})
    body = DynUNet(
        2, IN_CHANNELS, _outputs(config), kernels, strides, strides[1:], features,
        norm_name=norm, res_block=True,
    )  # fmt: skip
    return PriorResidual(body, 2 ** (len(features) - 1))


def _swin(config: NetworkConfig) -> nn.Module:
    from monai.networks.nets import SwinUNETR

    body = SwinUNETR(IN_CHANNELS, _outputs(config), feature_size=24, spatial_dims=2, window_size=8)
    return PriorResidual(body, 32)


def _unetr(config: NetworkConfig) -> nn.Module:
    from monai.networks.nets import UNETR

    edge = config.field_px + -config.field_px % 16
    body = UNETR(
        IN_CHANNELS, _outputs(config), edge,
        feature_size=16, hidden_size=192, mlp_dim=768, num_heads=6, spatial_dims=2,
    )  # fmt: skip
    return PriorResidual(body, 16)


NETWORKS: dict[str, Callable[[NetworkConfig], nn.Module]] = {
    "subpixel-unet": _subpixel,
    "subpixel4-unet": _subpixel4,
    "subpixel-basicunet": _subpixel_basic,
    "unet256": _unet256,
    "basicunet": _basic,
    "residual-unet": _residual,
    "attention-unet": _attention,
    "dynunet": _dynamic,
    "swin-unetr": _swin,
    "unetr": _unetr,
}


def build_generator(config: NetworkConfig) -> nn.Module:
    """Build a generator whose background starts as exactly the prior.

    Raises
    ------
    ConfigError
        If the name is unknown or the sizes do not fit the network.
    """
    if config.name not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise ConfigError(f"network.name: {config.name!r} is unknown; choose one of {known}")
    try:
        network = NETWORKS[config.name](config)
    except ImportError as error:  # MONAI's OptionalImportError is one
        raise ConfigError(
            f"network.name: {config.name} needs the package einops; pip install einops"
        ) from error
    except (ValueError, TypeError, AssertionError, IndexError) as error:
        raise ConfigError(f"network.features: {config.features}: {error}") from error
    if isinstance(network, PriorResidual):
        network.scaled = config.scaled
    _zero_last_layer(network)
    return network


def _zero_last_layer(network: nn.Module) -> None:
    """Zero the last convolution, which the table's builders all create last."""
    last = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))][-1]
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.zeros_(last.bias)


def build_discriminator(features: int, layers: int) -> nn.Module:
    """PatchGAN on (input, background): 3 + 1 channels to a map of scores (MONAI).

    Instance norm, since batch statistics would mix the tiles of a session.
    """
    from monai.networks.nets import PatchDiscriminator

    network: nn.Module = PatchDiscriminator(
        2, features, IN_CHANNELS + 1, 1, layers, norm="INSTANCE"
    )
    return network


def count_parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
