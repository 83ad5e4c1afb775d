from .mixed import validation_tells

__all__ = ["validation_tells"]
