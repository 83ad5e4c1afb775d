from .api import (
    correct,
    list_methods,
    list_models,
    measure_quality,
    read,
    stitch,
    train,
)
from .core import Scan
from .errors import TxmError
from .workflows import CorrectionResult

__all__ = [
    "CorrectionResult",
    "Scan",
    "TxmError",
    "__version__",
    "correct",
    "list_methods",
    "list_models",
    "measure_quality",
    "read",
    "stitch",
    "train",
]

__version__: str
