"""Networks that predict backgrounds, and models on disk with their cards.

torch and MONAI are loaded when a name is first used, never by the import.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
