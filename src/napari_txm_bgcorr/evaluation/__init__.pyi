from . import evaluate

__all__ = ["evaluate"]
