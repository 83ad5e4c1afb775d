"""Curves of a training that is going on: bounded in memory, redrawn a few times a second."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyqtgraph as pg
from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

__all__ = ["Curves", "Series", "Theme", "nice_ticks", "theme_colours"]

MOST_POINTS = 1500
FEW_POINTS = 20  # up to here each is marked: a single one makes no line
REDRAW_MS = 250

Theme = Mapping[str, str]
# Told apart on dark and on light ground, and by those who do not see red and green apart.
DARK_GROUND = ("#56b4e9", "#e69f00", "#3ddc97", "#ff8fc7", "#f0e442", "#b8b8ff")
LIGHT_GROUND = ("#0062a3", "#8f4f00", "#00714d", "#a3246f", "#6b6300", "#4b3fb3")


def theme_colours(name: str) -> dict[str, str]:
    """Colours of a napari theme as ``#rrggbb``: background, text, grid, and `dark` or not."""
    from napari.utils.theme import get_theme

    theme = get_theme(name)
    return {
        "background": theme.background.as_hex(format="long"),
        "text": theme.text.as_hex(format="long"),
        "warning": theme.warning.as_hex(format="long"),
        "dark": "yes" if sum(theme.background.as_rgb_tuple()[:3]) < 384 else "",
    }


class Series:
    """Points of one curve; the older ones are averaged in pairs when there are too many."""

    def __init__(self) -> None:
        self.x: list[float] = []
        self.y: list[float] = []
        self._every, self._held = 1, list[tuple[float, float]]()

    def add(self, x: float, y: float) -> None:
        """Append a point; what is no number is left out."""
        if not (math.isfinite(x) and math.isfinite(y)):
            return
        self._held.append((x, y))
        if len(self._held) < self._every:
            return
        count = len(self._held)
        self.x.append(sum(p[0] for p in self._held) / count)
        self.y.append(sum(p[1] for p in self._held) / count)
        self._held.clear()
        if len(self.x) >= MOST_POINTS:
            self.x, self.y = _halved(self.x), _halved(self.y)
            self._every *= 2


def _halved(values: list[float]) -> list[float]:
    return [(a + b) / 2 for a, b in zip(values[::2], values[1::2], strict=False)]


def nice_ticks(low: float, high: float, most: int, log: bool = False) -> list[float]:
    """At most `most` round values from `low` to `high`; of logarithms where `log` is set."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return []
    if log:
        decades = range(math.floor(low), math.ceil(high) + 1)
        fine = [d + math.log10(m) for d in decades for m in (1, 2, 5)]
        inside = [v for v in fine if low <= v <= high]
        whole = [float(d) for d in decades if low <= d <= high]
        found = inside if len(inside) <= most else whole
        if len(found) >= 2:
            return found[:: -(-len(found) // most)]
    step = 10.0 ** math.floor(math.log10(high - low))
    step = next(s for m in (0.1, 0.2, 0.5, 1, 2, 5) if (high - low) / (s := step * m) < most)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


class _FewTicks(pg.AxisItem):  # type: ignore[misc]
    """As many numbers as fit beside a small plot, without overlapping."""

    def __init__(self, side: str, log: bool = False) -> None:
        super().__init__(side)
        self._log, self._room = log, 18 if side == "left" else 60
        self.enableAutoSIPrefix(False)

    def tickValues(self, low: float, high: float, size: float) -> list[Any]:
        most = max(2, int(size // self._room))
        return [(1.0, nice_ticks(min(low, high), max(low, high), most, self._log))]

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        return [f"{10**value if self._log else value:.3g}" for value in values]


class _SmallPlot(pg.PlotWidget):  # type: ignore[misc]
    """A compact plot."""

    def sizeHint(self) -> QSize:
        return QSize(200, 84)

    def minimumSizeHint(self) -> QSize:
        return QSize(120, 36)


class Curves(QWidget):
    """A small plot with a line of coloured names above it.

    Parameters
    ----------
    name : str
        Object name of the plot.
    curves : mapping
        Key to the name shown.
    log : bool
        Logarithmic values; those that are not positive are left out.
    tip : str
    steps : bool
        Write the steps below.
    """

    def __init__(
        self, name: str, curves: Mapping[str, str], *, log: bool, tip: str, steps: bool = True
    ) -> None:
        super().__init__()
        self.names, self._log = dict(curves), log
        self.series: dict[str, Series] = {}
        self._start: float | None = None
        self.legend = QLabel()
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.legend.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        axes = {"left": _FewTicks("left", log=log), "bottom": _FewTicks("bottom")}
        self.plot = _SmallPlot(axisItems=axes)
        self.plot.setObjectName(name)
        self.plot.setToolTip(tip)
        self.plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
        self.plot.setMouseEnabled(x=False, y=False)
        self.plot.setMenuEnabled(False)
        self.plot.hideButtons()
        item = self.plot.getPlotItem()
        item.setLogMode(x=False, y=log)
        item.showGrid(x=False, y=True, alpha=0.25)
        item.getAxis("left").setWidth(44)
        item.getAxis("bottom").setHeight(18)
        item.showAxis("bottom", steps)
        self._lines = {key: item.plot([], []) for key in self.names}
        self._start_line = pg.InfiniteLine(angle=0, movable=False)
        self._start_line.setVisible(False)
        item.addItem(self._start_line)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self.legend)
        layout.addWidget(self.plot, 1)
        self._due = QTimer(self)
        self._due.setSingleShot(True)
        self._due.setInterval(REDRAW_MS)
        self._due.timeout.connect(self.redraw)
        self.redraws = 0

    def set_theme(self, theme: Theme) -> None:
        """Take napari's colours."""
        self._colours = dict(
            zip(self.names, DARK_GROUND if theme["dark"] else LIGHT_GROUND, strict=False)
        )
        self._text = theme["text"]
        self.plot.setBackground(theme["background"])
        for side in ("left", "bottom"):
            axis = self.plot.getPlotItem().getAxis(side)
            axis.setPen(theme["text"])
            axis.setTextPen(theme["text"])
        for key, line in self._lines.items():
            line.setPen(pg.mkPen(self._colours[key], width=2))
            line.setSymbolPen(None)
            line.setSymbolBrush(self._colours[key])
            line.setSymbolSize(5)
        self._start_line.setPen(pg.mkPen(theme["text"], style=Qt.PenStyle.DashLine))
        self._show_legend()

    def add(self, points: Iterable[tuple[str, float, float]]) -> None:
        """Append ``(key, step, value)`` points; drawn within a quarter of a second."""
        for key, step, value in points:
            if key in self.names and (value > 0 or not self._log):
                self.series.setdefault(key, Series()).add(step, value)
        if not self._due.isActive():
            self._due.start()

    def set_start(self, value: float | None) -> None:
        """Draw the value that the run started from as a dashed line."""
        if value == self._start:
            return
        self._start = value
        self._start_line.setVisible(value is not None)
        if value is not None:
            self._start_line.setValue(math.log10(value) if self._log else value)
        self._due.start()

    def clear(self) -> None:
        """Forget every point."""
        self.series.clear()
        self.set_start(None)
        self.redraw()

    def redraw(self) -> None:
        """Draw what has come."""
        self.redraws += 1
        for key, line in self._lines.items():
            series = self.series.get(key)
            x, y = ([], []) if series is None else (series.x, series.y)
            line.setData(x, y, symbol="o" if len(x) < FEW_POINTS else None)
        if self._start is not None:
            self._include_start(self._start)
        self._show_legend()

    def _include_start(self, start: float) -> None:
        """Keep the line of the start in view."""
        values = [y for series in self.series.values() for y in series.y]
        if values:
            low, high = min(*values, start), max(*values, start)
            self.plot.setYRange(low, high, padding=0.12)

    def stop(self) -> None:
        """Draw no more."""
        self._due.stop()

    def _show_legend(self) -> None:
        """Names in their colours; the newest values when pointed at."""
        if not hasattr(self, "_colours"):
            return
        words, newest = [], []
        for key, shown in self.names.items():
            series = self.series.get(key)
            if series is None or not series.y:
                continue
            value = f" {series.y[-1]:.3g}" if len(self.names) == 1 else ""  # space for one only
            words.append(f'<span style="color:{self._colours[key]}">▬</span> {shown}{value}')
            newest.append(f"{shown}: {series.y[-1]:.4g}")
        if self._start is not None:
            words.append(f"┄ start {self._start:.3g}")
        text = "&nbsp; ".join(words) or "&nbsp;".join(self.names.values())
        self.legend.setText(text)
        self.legend.setToolTip("\n".join(newest))
