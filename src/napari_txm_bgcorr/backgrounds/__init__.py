"""Background methods by name: from references, from the tiles, from a network.

`registry.METHODS` has one row a method; `make_method` makes one.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
