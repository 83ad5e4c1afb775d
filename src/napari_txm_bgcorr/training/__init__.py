"""Training of the generator: settings, losses, steps, the loop over them.

`run_training` keeps a run in a folder that panels and other programs can read.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
