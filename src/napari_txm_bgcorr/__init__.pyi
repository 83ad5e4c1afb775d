from .api import (
    CorrectionResult,
    correct,
    list_methods,
    list_models,
    measure_quality,
    read,
    stitch,
    train,
)
from .core import Scan

__all__ = [
    "CorrectionResult",
    "Scan",
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
