from . import metrics
from .flags import FLAGS, Flag, flagged, raised, shown_flags
from .measurement import Gauge, measure, trusted
from .reference_checks import fault_of, sample_score, thumbnail
from .table import COLUMNS, SIDES, TileQuality

__all__ = [
    "COLUMNS",
    "FLAGS",
    "SIDES",
    "Flag",
    "Gauge",
    "TileQuality",
    "fault_of",
    "flagged",
    "measure",
    "metrics",
    "raised",
    "sample_score",
    "shown_flags",
    "thumbnail",
    "trusted",
]
