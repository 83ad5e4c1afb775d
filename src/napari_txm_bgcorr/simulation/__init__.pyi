from . import acquisition
from .acquisition import (
    SimulatedScan,
    draw_session,
    simulate_mosaic,
    simulate_series,
    simulate_tile,
)
from .illumination import FAMILIES
from .illumination_drift import MODE_RMS, expected_drift, growth
from .session import SimulatedSession
from .specimens import FREE, SPECIMENS, draw_specimen

__all__ = [
    "FAMILIES",
    "FREE",
    "MODE_RMS",
    "SPECIMENS",
    "SimulatedScan",
    "SimulatedSession",
    "acquisition",
    "draw_session",
    "draw_specimen",
    "expected_drift",
    "growth",
    "simulate_mosaic",
    "simulate_series",
    "simulate_tile",
]
