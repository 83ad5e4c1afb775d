"""Writers of corrected scans, and finished outputs opened again.

An output is filled in ``OUT.part`` and renamed when it is complete; it can be taken up again.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
