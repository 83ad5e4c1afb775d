"""Predict and divide out the uneven background of transmission X-ray microscope images.

>>> import napari_txm_bgcorr as txm
>>> result = txm.correct("mosaic.xrm")
>>> result.transmission, result.background, result.notes
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("napari-txm-bgcorr")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
