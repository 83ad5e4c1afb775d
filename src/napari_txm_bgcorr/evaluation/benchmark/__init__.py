"""Benchmark of each acceleration of the training on the machine at hand.

Rows are timed side by side in one run.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
