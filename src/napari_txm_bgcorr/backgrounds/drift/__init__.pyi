from .model import DriftModel
from .restore import restored

__all__ = ["DriftModel", "restored"]
