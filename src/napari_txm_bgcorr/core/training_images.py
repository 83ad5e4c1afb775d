"""Images that a training learns from, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.errors import ConfigError

from .tile_array import TileArray

__all__ = ["ACQUISITION", "ImageStack", "TrainingData"]

ACQUISITION = ("pixel_nm", "energy_ev", "exposure_s", "binning")


@dataclass(frozen=True, eq=False)
class ImageStack:
    """Images of one size, with the session that each belongs to.

    Attributes
    ----------
    images : (N, Y, X) array-like, counts (transmission for clean samples)
        Read one by one when asked for.
    names : tuple of str
        One name an image.
    sessions : tuple of str
        Session of each image (a day, or a file): what is held out together.
    times : (N,) datetime64[s] or None
        When each was taken.
    dark : (Y, X) float32 or None
        Counts without beam.
    acquisition : tuple of mapping
        For each image any of `ACQUISITION`, as far as its file tells; empty: nothing known.
    """

    images: TileArray
    names: tuple[str, ...]
    sessions: tuple[str, ...]
    times: NDArray[np.datetime64] | None = None
    dark: NDArray[np.float32] | None = None
    acquisition: tuple[Mapping[str, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse facts that do not fit the images.

        Raises
        ------
        ConfigError
            If there is not one name and session (and time, and acquisition) an image.
        """
        count = int(self.images.shape[0]) if len(self.images.shape) == 3 else -1
        facts: list[Any] = [
            self.names,
            self.sessions,
            *([] if self.times is None else [self.times]),
            *([self.acquisition] if self.acquisition else []),
        ]
        if any(len(fact) != count for fact in facts):
            sizes = ", ".join(str(len(fact)) for fact in facts)
            raise ConfigError(
                f"training data: {sizes} names, sessions, times for images of shape "
                f"{tuple(self.images.shape)}; give one of each an image"
            )

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def facts_of(self, k: int) -> Mapping[str, float]:
        """Known facts of the acquisition of image `k`."""
        return self.acquisition[k] if self.acquisition else {}


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Everything that was found under the paths of a training's settings.

    Attributes
    ----------
    references : tuple of ImageStack
        Images without sample, of any sizes.
    samples : tuple of ImageStack
        Transmission of clean samples.
    raws, backgrounds : tuples of ImageStack
        Real pairs: image ``k`` of stack ``i`` in both belong together.
    notes : tuple of str
        What was left out or assumed, one sentence each, shown to the user.
    """

    references: tuple[ImageStack, ...] = ()
    samples: tuple[ImageStack, ...] = ()
    raws: tuple[ImageStack, ...] = ()
    backgrounds: tuple[ImageStack, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse pairs that do not match.

        Raises
        ------
        ConfigError
            If raw and background stacks differ in number or size.
        """
        raws, backgrounds = ([s.images.shape for s in x] for x in (self.raws, self.backgrounds))
        if raws != backgrounds:
            raise ConfigError(
                f"training data: raw images {raws} and backgrounds {backgrounds} do not match; "
                "give one background of the same size for each raw image"
            )

    def counts(self) -> dict[str, int]:
        """Number of images of each kind."""
        kinds = {"references": self.references, "samples": self.samples, "pairs": self.raws}
        return {kind: sum(map(len, stacks)) for kind, stacks in kinds.items()}
