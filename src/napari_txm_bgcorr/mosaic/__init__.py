"""Positions of the tiles of a mosaic, and their assembly into one picture.

An overview of the scan, registration of neighbouring tiles, blending.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
