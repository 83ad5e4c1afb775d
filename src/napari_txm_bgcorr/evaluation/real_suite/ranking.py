"""Ranking of the methods on each case, and a check that ``auto`` is not worse than others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from napari_txm_bgcorr.backgrounds import LEARNED

from .metrics import Figures

__all__ = ["GUARD", "MARGIN", "Comparison", "Row", "best_figures", "by_case", "no_harm"]

GUARD = 0.022  # error of a background that follows the drift away from its truth
MARGIN = 0.002  # of error, spread and seam, that is no difference
JUDGED = "auto"


@dataclass(frozen=True)
class Row:
    """One method on one case.

    Attributes
    ----------
    case, method : str
    check : bool
        The truth is what was given: not ranked by error.
    by : {"error", "seam"}
        What ranks the case.
    figures : Figures
    failed : str or None
        Why there are no figures.
    notes : tuple of str
        What the correction had to say.
    """

    case: str
    method: str
    check: bool
    by: str
    figures: Figures = field(default_factory=Figures)
    failed: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def learned(self) -> bool:
        """True if a network made the row; otherwise a method that a user may choose instead."""
        return self.method.split()[0] in LEARNED


@dataclass(frozen=True)
class Comparison:
    """One figure of ``auto`` beside the best of the other methods.

    Attributes
    ----------
    case, figure : str
    auto, other : float or None
        Shares of 1; None where there is none.
    method : str
        Whose `other` is; ``limit`` where the rule sets a limit.
    harmless : bool or None
        None where there is nothing to compare with.
    """

    case: str
    figure: str
    auto: float | None
    other: float | None
    method: str
    harmless: bool | None


def by_case(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of each case, in order of appearance."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.case, []).append(row)
    return list(found.values())


def best_figures(rows: Sequence[Row]) -> list[frozenset[str]]:
    """Figures in which each row is the best of one case.

    By error in all cases but checks. By spread and seam only among methods whose error is
    within the guard: a copy of the raw tile is flat and has no seam.

    Parameters
    ----------
    rows : sequence of Row
        Of one case.

    Returns
    -------
    list of frozenset
        Names of figures, one set a row.
    """
    sound = _sound(rows)
    best: list[set[str]] = [set() for _ in rows]
    for figure, among in (
        ("error", [] if rows and rows[0].check else rows), ("spread", sound), ("seam", sound)
    ):  # fmt: skip
        values = [getattr(row.figures, figure) for row in among]
        least = min((v for v in values if v is not None), default=None)
        for k, row in enumerate(rows):
            if least is not None and row in among and getattr(row.figures, figure) == least:
                best[k].add(figure)
    return [frozenset(one) for one in best]


def _error_limit(rows: Sequence[Row]) -> float:
    """Largest error with which spread and seam still mean something."""
    known = [row.figures.error for row in rows if row.figures.error is not None]
    if not known or rows[0].check:
        return GUARD
    return max(GUARD, min(known) + MARGIN)


def _sound(rows: Sequence[Row]) -> list[Row]:
    limit = _error_limit(rows)
    return [row for row in rows if row.figures.error is not None and row.figures.error <= limit]


def no_harm(rows: Iterable[Row]) -> list[Comparison]:
    """Compare ``auto`` with the best of the methods that need no training, case by case.

    Cases ranked by error: its error is at most `MARGIN` above the best. Cases ranked by seam:
    spread and seam are at most `MARGIN` above the best of the methods within the guard, and
    its own error is within the guard. Checks are not compared by error.

    Parameters
    ----------
    rows : iterable of Row
        Of any number of cases.
    """
    return [one for case in by_case(rows) for one in _compared(case)]


def _compared(rows: Sequence[Row]) -> list[Comparison]:
    auto = next((row for row in rows if row.method == JUDGED), None)
    if auto is None:
        return []
    if auto.failed is not None:
        return [Comparison(auto.case, "error", None, None, "", False)]
    others = [row for row in rows if not row.learned]
    if auto.by == "error":
        return [] if auto.check else [_beside(auto, others, "error")]
    limit = _error_limit([auto] if auto.check else [auto, *others])
    error = auto.figures.error
    guard = Comparison(
        auto.case, "error", error, limit, "limit", None if error is None else error <= limit
    )
    sound = [row for row in _sound([*others, auto]) if row is not auto]
    return [guard, *(_beside(auto, sound, figure) for figure in ("spread", "seam"))]


def _beside(auto: Row, others: Sequence[Row], figure: str) -> Comparison:
    own = getattr(auto.figures, figure)
    known = [(v, row.method) for row in others if (v := getattr(row.figures, figure)) is not None]
    if own is None or not known:
        return Comparison(auto.case, figure, own, None, "", None)
    least, method = min(known)
    return Comparison(auto.case, figure, own, least, method, own <= least + MARGIN)
