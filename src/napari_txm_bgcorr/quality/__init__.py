"""Quality of a correction: figures of each tile, flags, checks of references.

With the true background where it is known, and without it where it is not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
