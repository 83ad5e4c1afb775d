"""The report and the table: complete, self-contained, safe with any name."""

from __future__ import annotations

import base64
import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlparse

import imagecodecs
import numpy as np
import pytest

from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.io import report
from napari_txm_bgcorr.io.report_pictures import (
    CELL_PX,
    FLAGGED,
    UNKNOWN,
    colour,
    grey_png,
    grid_png,
)
from napari_txm_bgcorr.quality import flags
from napari_txm_bgcorr.quality.flags import Worth
from napari_txm_bgcorr.quality.measurement import measure
from napari_txm_bgcorr.quality.table import COLUMNS, TileQuality
from tests.mosaic.scenes import make_scene

MIDDLE = 4
VOID = {"img", "meta", "br"}


@pytest.fixture(autouse=True)
def proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was measured last: seam and level are shown."""
    rows = {key: Worth(0.1, ({"decides": True, "auc": (0.5, 0.4, 0.6)},)) for key in flags.worth()}
    good = ({"decides": True, "auc": (0.9, 0.8, 1.0)},)
    rows |= {"seam": Worth(0.05, good), "level": Worth(0.06, good)}
    monkeypatch.setattr(flags, "worth", lambda: rows)


@pytest.fixture
def page() -> report.Report:
    scene = make_scene()
    scene.backgrounds[MIDDLE] *= np.float32(1.1)
    gauge = measure(scene.scan, scene.backgrounds, scene.corrected, registration=False)
    table = gauge.table()
    raw, corrected = gauge.pictures()
    return report.Report(
        title="Quality of out.ome.zarr",
        quality=table,
        raw=raw,
        corrected=corrected,
        thumbnails={i: gauge.thumbnail(i) for i in report.worst(table)},
        provenance={
            "source_path": "scan.xrm",
            "method": "auto",
            "parameters": {"prior": "tile-median", "weights_sha256": "ab12"},
            "versions": {"numpy": "2.0"},
            "redone": [
                {"tiles": [3], "method": "smooth", "date": "2026-01-01", "complete": True},
                {"tiles": [5], "method": "smooth", "date": "2026-01-02", "complete": False},
            ],
        },
        facts={"pixel": "29.3 nm"},
        notes=["A note."],
    )


class Checker(HTMLParser):
    """Collects addresses; fails on tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [str(v) for k, v in attrs if k in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_formed_and_needs_nothing_else(page: report.Report):
    text = report.html_text(page)
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert checker.addresses and all(
        a.startswith("data:image/png;base64,") for a in checker.addresses
    )
    assert not re.search(r"url\(|@import|<script|http", text)
    for address in checker.addresses:
        pixels = imagecodecs.png_decode(base64.b64decode(urlparse(address).path.split(",")[1]))
        assert min(pixels.shape[:2]) > 1


def test_page_says_what_is_known(page: report.Report):
    text = report.html_text(page)
    for part in (
        "Quality of out.ome.zarr", "29.3 nm", "A note.", "1 of 9 tiles flagged", "seam 1",
        "scan.xrm", "tile-median", "numpy 2.0", "tiles 3 by smooth, 2026-01-01<",
        "tiles 5 by smooth, 2026-01-02; interrupted", "the stage&#x27;s own",
    ):  # fmt: skip
        assert part.replace("&#x27;", "'") in text.replace("&#x27;", "'"), part
    assert text.count("ab12") == 0  # the hash of the weights has a line of its own


def test_names_cannot_break_the_page(page: report.Report):
    evil = '<script>alert(1)</script>"&$title'
    table = replace(page.quality, names=(evil,) * 9)
    bad = replace(page, title=evil, quality=table, provenance={"method": evil}, notes=[evil])
    text = report.html_text(bad)
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&amp;$title") >= 5


def test_worst_come_first_and_none_unmeasured(page: report.Report):
    assert report.worst(page.quality)[0] == MIDDLE
    measured = np.zeros(9, bool)
    measured[[1, 2]] = True
    assert set(report.worst(replace(page.quality, measured=measured))) <= {1, 2}


def test_table_reads_back_with_units(page: report.Report, tmp_path: Path):
    path = tmp_path / "tiles.csv"
    report.write_csv(path, page.quality)
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert len(rows) == 9
    middle = rows[MIDDLE]
    assert (middle["tile"], middle["name"]) == ("4", "t4")
    assert float(middle["level (%)"]) == pytest.approx(-100 * np.log(1.1), rel=0.02)
    assert float(middle["valid (%)"]) == 100
    assert middle["flags"] == "seam level"
    assert middle["novelty"] == ""
    assert rows[0]["seam after left (%)"] == "" and rows[0]["seam after top (%)"] != ""
    assert float(rows[0]["y (px)"]) == 96
    heads = [f"{c.label} ({c.unit})" if c.unit else c.label for c in COLUMNS.values()]
    assert [h for h in rows[0] if h in heads] == heads


def test_series_has_a_report_too(page: report.Report):
    scene = make_scene(kind="series")
    gauge = measure(scene.scan, scene.backgrounds, scene.corrected)
    raw, corrected = gauge.pictures()
    text = report.html_text(report.Report("x", gauge.table(), raw, corrected))
    assert "none: no overlaps" in text
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", text))


def test_grid_marks_flagged_and_unknown_cells():
    cells = np.array([[0, 0], [0, 1], [1, 1]])
    png = grid_png(np.array([0.0, 2.0, np.nan]), np.array([False, True, False]), cells, 2.0)
    pixels = imagecodecs.png_decode(png)
    middle = CELL_PX // 2
    assert tuple(pixels[middle, middle]) == colour(0)
    assert tuple(pixels[middle, CELL_PX + middle]) == colour(1)
    assert tuple(pixels[1, CELL_PX + 1]) == FLAGGED
    assert tuple(pixels[CELL_PX + middle, CELL_PX + middle]) == UNKNOWN
    assert tuple(pixels[CELL_PX + middle, middle]) == (255, 255, 255)  # no tile there
    light = [sum(colour(x)) for x in np.linspace(0, 1, 20)]
    assert light == sorted(light, reverse=True)  # readable without colour


def test_grey_picture_spans_black_to_white_and_leaves_unknown_white():
    image = np.linspace(2, 5, 400).reshape(20, 20)
    image[0, 0] = np.nan
    pixels = imagecodecs.png_decode(grey_png(image, (2.0, 5.0)))
    assert pixels[0, 0] == 255
    assert pixels[0, 1] == 1 and pixels[-1, -1] == 255
    assert imagecodecs.png_decode(grey_png(np.full((4, 4), np.nan))).min() == 255


def test_no_permission_is_one_clear_line(page: report.Report, tmp_path: Path):
    with pytest.raises(WriteError, match="nowhere"):
        report.write_html(tmp_path / "nowhere" / "r.html", page)


def test_figures_leave_out_what_nobody_knows(page: report.Report):
    table: TileQuality = page.quality
    assert np.isnan(table.novelty).all()
    text = report.html_text(page)
    assert "<th>novelty</th>" not in text and "<th>seam after (%)</th>" in text
