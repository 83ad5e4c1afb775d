"""The drift model: level, pattern and smooth drift of all tiles, solved together.

`DriftModel` puts it on top of any other method; docs/decisions tells how it works.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
