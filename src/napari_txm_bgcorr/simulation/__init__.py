"""A simulated full-field X-ray microscope: instruments, days, specimens, exposures.

Everything is drawn from a seed, and the truth is known beside it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
