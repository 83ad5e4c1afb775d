"""Whole jobs: correct, watch a folder, stitch, redo, measure, harvest, simulate.

The command line, the panels and Python call these; nothing here knows a window.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
