"""The automatic method is never worse than what it was given, nor than a classical method.

Errors of whole tables, not of single tiles: a single one may be unlucky. The real suite has the
same rule, where its scans are at hand (`tests/system/test_evaluate_real.py`).
"""

from __future__ import annotations

import pytest

from napari_txm_bgcorr.evaluation.cases import CASES
from napari_txm_bgcorr.evaluation.evaluate import evaluate
from napari_txm_bgcorr.evaluation.real_suite.ranking import MARGIN

METHODS = ("auto", "captured", "tile-median", "smooth", "envelope", "eigen-flats")
SESSIONS = 4


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, float]]:
    """Mean error by case and method, one scale a tile, over both groups of illumination."""
    rows = evaluate(METHODS, sessions=SESSIONS, size=128)
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        case = found.setdefault(row["case"], {})
        case[row["method"]] = case.get(row["method"], 0) + row["sf"]["mean"] / 2
    return found


@pytest.mark.parametrize("case", CASES)
def test_no_table_is_worse_than_its_best_simple_method(
    errors: dict[str, dict[str, float]], case: str
) -> None:
    auto = errors[case].pop("auto")
    least = min(errors[case], key=errors[case].__getitem__)
    assert auto <= errors[case][least] + MARGIN, least
