"""OME-NGFF 0.5 metadata of images at several resolutions (ngff.openmicroscopy.org/0.5)."""

from __future__ import annotations

from typing import Any

from yaozarrs import v05

__all__ = ["multiscales"]


def multiscales(
    name: str, levels: int, pixel_nm: float | None, *, time: bool = False, type: str | None = None
) -> dict[str, Any]:
    """Describe an image and its halvings: the value of ``ome`` in the group's attributes.

    Parameters
    ----------
    name : str
    levels : int
        Resolutions; each has half the pixels of the one before, along y and x.
    pixel_nm : float or None
        Of the finest; None: lengths are in pixels.
    time : bool
        A first axis of tiles.
    type : str or None
        How levels were made, for example ``"mean"``.

    Returns
    -------
    dict
        JSON-ready, valid by `yaozarrs`.
    """
    size = 1.0 if pixel_nm is None else pixel_nm / 1000
    unit = None if pixel_nm is None else "micrometer"
    first, still = ([1.0], [0.0]) if time else ([], [])
    space = [v05.SpaceAxis(name=axis, unit=unit) for axis in "yx"]
    datasets = [
        v05.Dataset(
            path=str(level),
            coordinateTransformations=[
                v05.ScaleTransformation(scale=[*first, *([size * 2**level] * 2)]),
                # a halved pixel's centre lies between those that it is the mean of
                v05.TranslationTransformation(
                    translation=[*still, *([size * (2**level - 1) / 2] * 2)]
                ),
            ],
        )
        for level in range(levels)
    ]
    axes: list[Any] = [v05.TimeAxis(name="t"), *space] if time else [*space]
    image = v05.Multiscale(name=name, axes=axes, datasets=datasets, type=type)
    described: dict[str, Any] = v05.Image(version="0.5", multiscales=[image]).model_dump(
        mode="json", exclude_none=True
    )
    return described
