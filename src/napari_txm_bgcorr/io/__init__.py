"""File formats to and from scans and corrections, and records of what was done.

`readers` reads, `output` writes; formats are rows of `READERS` and `WRITERS`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
