"""Settings of a network."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["NetworkConfig"]


class NetworkConfig(BaseModel):
    """Settings of a network: its kind, size and outputs.

    Attributes
    ----------
    name : str
        Row of `networks.NETWORKS`.
    field_px : int
        Edge of the square field in pixels to which every whole tile is resampled.
    features : tuple of int
        Channels per level, finest first; empty: the network's own default. At the coarsest level
        8 cells or fewer should span the field, so that a pixel sees the whole tile.
    ngf : int
        Channels of the first level of the pix2pix U-Net.
    scaled : bool
        Scale the correction to a prior by the prior's expected error.
    probabilistic : bool
        Besides the log background predict its log-variance and the logit of the probability that
        a pixel is free of sample.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "subpixel-unet"
    field_px: int = Field(default=256, ge=16, le=2048)
    features: tuple[int, ...] = ()
    ngf: int = Field(default=64, ge=1, le=512)
    scaled: bool = False
    probabilistic: bool = False
