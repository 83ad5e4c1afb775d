"""Predict and divide out the uneven background of transmission X-ray microscope images."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("napari-txm-bgcorr")
