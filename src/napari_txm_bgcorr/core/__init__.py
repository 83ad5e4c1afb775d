"""Scans and their correction: tiles, references, background methods, division.

NumPy and SciPy only; every other package builds on this one.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
