"""Training pairs: real, composed of references and specimens, or simulated.

Batches are drawn by number, so that a resumed run sees what it would have seen.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
