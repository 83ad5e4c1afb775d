"""Curves: bounded in memory, redrawn seldom, readable in either theme."""

import math

import pytest

from napari_txm_bgcorr.gui.common.plots import (
    DARK_GROUND,
    LIGHT_GROUND,
    MOST_POINTS,
    Curves,
    Series,
    nice_ticks,
    theme_colours,
)


def test_a_series_never_grows_and_keeps_its_mean():
    series = Series()
    count = 64 * MOST_POINTS
    for i in range(count):
        series.add(i, float(i))
    assert MOST_POINTS / 2 <= len(series.x) <= MOST_POINTS
    assert series.x == sorted(series.x) and series.x == series.y
    assert sum(series.y) / len(series.y) == pytest.approx((count - 1) / 2, rel=0.02)
    series.add(math.nan, 1)
    series.add(1, math.inf)
    assert all(map(math.isfinite, series.y))


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("span", [(0.011, 0.013), (-4, 1), (0, 1), (3, 2000)])
@pytest.mark.parametrize("most", [2, 3, 6])
def test_ticks_are_few_and_inside(span, most, log):
    ticks = nice_ticks(*span, most, log)
    assert 1 <= len(ticks) <= most
    least, greatest = span[0] - 1e-9, span[1] + 1e-9
    assert all(least <= v <= greatest for v in ticks) and ticks == sorted(set(ticks))


def test_ticks_of_nothing():
    assert nice_ticks(1, 1, 3) == [] and nice_ticks(math.nan, 1, 3) == []


@pytest.fixture
def curves(qtbot):
    made = Curves("loss_plot", {"total": "generator", "l1": "L1"}, log=True, tip="t")
    qtbot.addWidget(made)
    made.set_theme(theme_colours("dark"))
    return made


def test_many_points_are_drawn_at_once(curves, qtbot):
    before = curves.redraws
    for i in range(200):
        curves.add([("total", i, 1 / (i + 1)), ("l1", i, -1), ("unknown", i, 1)])
    assert curves.redraws == before
    qtbot.waitUntil(lambda: curves.redraws > before)
    assert curves.redraws == before + 1
    assert len(curves.series["total"].x) == 200
    assert "l1" not in curves.series  # not positive: nothing on a logarithmic axis
    assert "</span> generator" in curves.legend.text() and "L1" not in curves.legend.text()
    assert curves.legend.toolTip() == "generator: 0.005"
    curves.stop()


def test_start_is_a_line_in_view(curves, qtbot):
    curves._log = False
    curves.set_start(9.0)
    curves.add([("total", i, 4.0) for i in range(3)])
    curves.redraw()
    low, high = curves.plot.getPlotItem().viewRange()[1]
    assert low < 4 and high > 9 and "start 9" in curves.legend.text()
    curves.clear()
    assert not curves.series and "start" not in curves.legend.text()
    curves.stop()


def contrast(one, other):
    """WCAG contrast ratio of two ``#rrggbb``."""

    def light(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        lin = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * lin[0] + 0.7152 * lin[1] + 0.0722 * lin[2]

    a, b = sorted((light(one), light(other)))
    return (b + 0.05) / (a + 0.05)


@pytest.mark.parametrize(("theme", "colours"), [("dark", DARK_GROUND), ("light", LIGHT_GROUND)])
def test_lines_stand_out_in_either_theme(theme, colours):
    found = theme_colours(theme)
    assert bool(found["dark"]) == (theme == "dark")
    for colour in (*colours, found["text"]):
        assert contrast(colour, found["background"]) > 4.5, colour
