from .captured import COMBINE, Captured
from .registry import JOINT_BY_DEFAULT, LEARNED, METHODS, make_method, method_names

__all__ = [
    "COMBINE",
    "JOINT_BY_DEFAULT",
    "LEARNED",
    "METHODS",
    "Captured",
    "make_method",
    "method_names",
]
