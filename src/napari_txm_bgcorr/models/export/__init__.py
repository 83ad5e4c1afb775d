"""Models for other programs: ONNX, bioimage.io packages, safetensors.

What is written is run and compared with the model before it is handed out.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
