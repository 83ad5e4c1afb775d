"""Judging background methods on simulated and on real scans.

`benchmark` times the training; `real_suite` compares methods on real scans.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
