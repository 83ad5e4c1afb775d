from .folder import RunFolder
from .status import ACTIVE, RunStatus, read_status

__all__ = ["ACTIVE", "RunFolder", "RunStatus", "read_status"]
