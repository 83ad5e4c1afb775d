"""Methods judged on real scans whose backgrounds are known from references.

A manifest lists the cases; figures of each method are ranked and written as tables.
"""

from .areas import Area, area_mask
from .manifest import MANIFEST, FineTune, RealCase, load_manifest
from .metrics import Figures, Scene, log_error, mean_truth
from .ranking import Comparison, Row, best_figures, by_case, no_harm
from .table import (
    csv_text,
    harm_text,
    json_rows,
    markdown_text,
    place_between_marks,
    summary_text,
    table_head,
    table_text,
)

__all__ = [
    "MANIFEST",
    "Area",
    "Comparison",
    "Figures",
    "FineTune",
    "RealCase",
    "Row",
    "Scene",
    "area_mask",
    "best_figures",
    "by_case",
    "csv_text",
    "harm_text",
    "json_rows",
    "load_manifest",
    "log_error",
    "markdown_text",
    "mean_truth",
    "no_harm",
    "place_between_marks",
    "summary_text",
    "table_head",
    "table_text",
]
