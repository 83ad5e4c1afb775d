"""Resources used by this process, as the operating system reports them."""

from __future__ import annotations

import psutil

__all__ = ["peak_rss_mb"]

MB = 1e6


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in MB (10^6 bytes)."""
    peak_wset = getattr(psutil.Process().memory_info(), "peak_wset", None)
    if peak_wset is not None:  # Windows
        return float(peak_wset) / MB
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MB if sys.platform == "darwin" else peak * 1024 / MB
