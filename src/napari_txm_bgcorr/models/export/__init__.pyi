from .formats import export_model

__all__ = ["export_model"]
