from .captured import COMBINE, Captured
from .registry import JOINT_BY_DEFAULT, LEARNED, METHODS, make_method, method_names
from .stored import StoredBackgrounds

__all__ = [
    "COMBINE",
    "JOINT_BY_DEFAULT",
    "LEARNED",
    "METHODS",
    "Captured",
    "StoredBackgrounds",
    "make_method",
    "method_names",
]
