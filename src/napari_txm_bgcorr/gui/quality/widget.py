"""The panel "Mosaic quality": where to trust a correction, and what to do about a bad tile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from napari.utils.notifications import show_error
from qtpy.QtCore import QItemSelectionModel
from qtpy.QtWidgets import QFileDialog

from napari_txm_bgcorr.errors import TxmError
from napari_txm_bgcorr.gui.common.dock import Docked, find_panel
from napari_txm_bgcorr.gui.common.event_queue import Steps
from napari_txm_bgcorr.gui.common.messages import Advanced, Failed, Preparing
from napari_txm_bgcorr.gui.common.preferences import preferences
from napari_txm_bgcorr.gui.common.widgets import existing, time_left
from napari_txm_bgcorr.gui.common.worker import Runner
from napari_txm_bgcorr.gui.correct.messages import Reopened
from napari_txm_bgcorr.gui.layers.convert import draw_thumbnail, owner_of
from napari_txm_bgcorr.gui.layers.result import Result
from napari_txm_bgcorr.gui.layers.saved_result import OpenedResult
from napari_txm_bgcorr.quality import COLUMNS

from .form import JOINT_TIP, REDO_TIP, RESULT_TIP, QualityForm
from .overlays import QualityLayers, shown_results
from .tasks import (
    Exported,
    Measured,
    QualityMessage,
    Redo,
    Redone,
    export_quality,
    measure_result,
    open_outputs,
    redo_tiles,
)

if TYPE_CHECKING:
    import napari

__all__ = ["QualityWidget"]

NO_RESULT = (
    "Correct a mosaic or series, or open a saved one: drop its .ome.zarr or folder here. Its "
    "tiles are then judged."
)
STAYS = "{name} on disk stays as it is; “Save…” in “Background correction” keeps what is redone."
DEFAULT_COLOUR = "seam_after"


class QualityWidget(Docked, QualityForm):
    """Choice of result, Measure, colours and outlines, the table, redo and export.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
    """

    title = "Mosaic quality"

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        from napari_txm_bgcorr.backgrounds import method_names

        super().__init__(method_names())
        self.viewer = napari_viewer
        self.overlay = QualityLayers(napari_viewer)
        self.runner = Runner(self)
        self._steps = Steps(self)
        self._results: dict[str, Result] = {}
        self._measured: Measured | None = None
        self._failed = self._closed = False
        self._connect()
        self._find_results()
        self._result_chosen()

    @property
    def busy(self) -> bool:
        """True while the worker is at work, or a message waits to be shown."""
        return self.runner.busy or bool(self._steps)

    @property
    def result(self) -> Result | None:
        """The result that is being judged."""
        return self._results.get(self.result_combo.currentText())

    @property
    def _selection(self) -> QItemSelectionModel:
        return existing(self.table.selectionModel())

    def _connect(self) -> None:
        self.open_button.clicked.connect(self._ask_output)
        self.dropped.connect(self.open_paths)
        self.measure_button.clicked.connect(self.measure)
        self.cancel_button.clicked.connect(self.runner.cancel)
        self.redo_button.clicked.connect(self.redo)
        self.csv_button.clicked.connect(lambda: self._ask_export("Table (*.csv)", ".csv"))
        self.report_button.clicked.connect(lambda: self._ask_export("Page (*.html)", ".html"))
        self.result_combo.currentIndexChanged.connect(self._result_chosen)
        self.colour_combo.currentIndexChanged.connect(self._colour)
        self.outline_box.toggled.connect(self.overlay.outline)
        self.flagged_box.toggled.connect(self.sorted.only_flagged)
        self._selection.selectionChanged.connect(self._rows_chosen)
        self.runner.message.connect(lambda message: self._steps.add(self._hear(message)))
        self.runner.ended.connect(lambda broken: self._steps.add(self._ended(broken)))
        self.viewer.layers.events.inserted.connect(self._find_results)
        self.viewer.layers.events.removed.connect(self._find_results)
        self.viewer.mouse_drag_callbacks.append(self._clicked)
        self.destroyed.connect(self.runner.drop)

    # -- what the viewer shows ----------------------------------------------------------------

    def _find_results(self, event: Any = None) -> None:
        if self._closed:
            return
        found = shown_results(self.viewer)
        if list(found) != list(self._results) or any(
            found[name] is not self._results[name] for name in found
        ):
            before = self.result_combo.currentText()
            self._results = found
            self.result_combo.blockSignals(True)
            self.result_combo.clear()
            self.result_combo.addItems(list(found))
            at = self.result_combo.findText(before)
            self.result_combo.setCurrentIndex(at if at >= 0 else len(found) - 1)
            self.result_combo.blockSignals(False)
            self._result_chosen()
        self._enable()

    def _result_chosen(self) -> None:
        result = self.result
        if result is not self.overlay.result:
            self.overlay.look_at(result)
            self._show_table(None)
            self.overlay.outline(self.outline_box.isChecked())
        if not self.runner.running:
            self.status_label.setText(NO_RESULT if result is None else "")
        self._enable()

    def _enable(self) -> None:
        running, known = self.runner.running, self.model.quality is not None
        self.measure_button.setEnabled(self.result is not None and not running)
        self.cancel_button.setEnabled(running)
        opened = self.result if isinstance(self.result, OpenedResult) else None
        fixed = "" if opened is None else opened.fixed
        can_redo = known and not running and not fixed and bool(self.selected())
        for widget in (self.redo_button, self.method_combo, self.near_combo, self.joint_box,
                       self.references):  # fmt: skip
            widget.setEnabled(can_redo)
        more = "" if opened is None else "\n" + STAYS.format(name=opened.path.name)
        self.result_combo.setToolTip(RESULT_TIP + ("" if opened is None else f":\n{opened.path}"))
        self.redo_button.setToolTip(fixed or REDO_TIP + more)
        self.joint_box.setToolTip(fixed or JOINT_TIP)
        self.open_button.setEnabled(not running)
        for widget in (self.csv_button, self.report_button):
            widget.setEnabled(known and not running)
        for widget in (self.colour_combo, self.flagged_box):
            widget.setEnabled(known)
        self.outline_box.setEnabled(self.overlay.on_canvas)

    # -- the work -----------------------------------------------------------------------------

    def open_paths(self, paths: list[Path]) -> None:
        """Open finished outputs on disk, one after the other; the last one is judged."""
        if not self.runner.running and paths:
            chosen = tuple(paths)
            self._start(lambda stop, tell: open_outputs(chosen, stop), "Opening …")

    def _ask_output(self) -> None:
        if name := QFileDialog.getExistingDirectory(self, "Open a saved correction"):
            self.open_paths([Path(name)])

    def measure(self) -> None:
        """Measure every tile of the chosen result."""
        result = self.result
        if result is not None and not self.runner.running:
            self._start(lambda stop, tell: measure_result(result, stop), "Measuring …")

    def redo(self) -> None:
        """Correct the selected tiles again, then measure anew."""
        result, indices = self.result, self.selected()
        if result is None or not indices or self.runner.running:
            return
        wanted = Redo(
            result,
            tuple(indices),
            self.method_combo.currentData(),
            *self._model_and_device(result),
            references=self.chosen_references,
            local=self.near_combo.currentData(),
            joint=self.joint_box.isChecked(),
        )
        self._start(lambda stop, tell: redo_tiles(wanted, stop, tell), "Redoing …")

    def _model_and_device(self, result: Result) -> tuple[str, str]:
        """Model and device of the correction panel; if it is closed, the result's own model."""
        panel = find_panel(self.window_around(), "Background correction")
        if panel is not None:
            return panel.session.model, panel.session.device
        noted = (result.provenance or {}).get("parameters", {})
        return str(noted.get("model", "default")), preferences().device

    def export(self, path: Path) -> None:
        """Write the table (.csv) or the report (.html)."""
        measured = self._measured
        if measured is not None and not self.runner.running:
            self._start(lambda stop, tell: export_quality(measured, path), "Writing …")

    def _ask_export(self, kind: str, suffix: str) -> None:
        name = f"{self.result_combo.currentText()} quality{suffix}"
        chosen, _ = QFileDialog.getSaveFileName(self, "Save", name, kind)
        if chosen:
            self.export(Path(chosen).with_suffix(suffix))

    def _start(self, task: Any, text: str) -> None:
        self._failed = False
        self.runner.start(task)
        self.progress_bar.setRange(0, 0)
        self.status_label.setText(text)
        self._enable()

    def _hear(self, message: QualityMessage) -> Iterator[None]:
        if isinstance(message, Reopened):
            yield from self._show_opened(message)
        elif isinstance(message, Advanced):
            self.progress_bar.setRange(0, message.total)
            self.progress_bar.setValue(message.done)
            self.progress_bar.setFormat(f"%v of %m tiles, {time_left(message.seconds_left)} left")
        elif isinstance(message, Preparing):
            self.status_label.setText(message.text)
        elif isinstance(message, Measured):
            yield from self._table_steps(message)
        elif isinstance(message, Redone):
            yield from self._redone(message)
        elif isinstance(message, Exported):
            self.status_label.setText(f"Saved {message.path}")
        elif isinstance(message, Failed):
            self._complain(message.error)

    def _show_opened(self, message: Reopened) -> Iterator[None]:
        for layer in message.layers:
            draw_thumbnail(self.viewer.add_layer(Layer.create(*layer)))
            yield
        self.result_combo.setCurrentIndex(
            next(i for i, r in enumerate(self._results.values()) if r is message.result)
        )

    def _ended(self, broken: bool) -> Iterator[None]:
        self.progress_bar.setRange(0, 1)
        self.progress_bar.setValue(0)
        self.progress_bar.setFormat("")
        if broken:
            self.status_label.setText("Stopped by a fault of the program; napari shows it.")
        elif self.status_label.text().endswith("…") and not self._failed:
            self.status_label.setText("Cancelled")
        self._enable()
        yield

    def _complain(self, error: TxmError) -> None:
        self._failed = True
        self.status_label.setText(str(error))
        show_error(str(error))

    def _redone(self, message: Redone) -> Iterator[None]:
        for layer in list(self.viewer.layers):
            if layer.visible and owner_of(layer) is message.result:
                layer.refresh()
                yield
        count = len(message.indices)
        said = f"{'1 tile' if count == 1 else f'{count} tiles'} redone; press Measure to judge."
        if isinstance(message.result, OpenedResult):
            said += " " + STAYS.format(name=message.result.path.name)
        self.status_label.setText(said)
        again = self.model.quality is not None and message.result is self.result
        if again:  # the figures on show are those of tiles that are gone
            yield from self._table_steps(None)

    # -- table, colours and canvas --------------------------------------------------------------

    def _show_table(self, measured: Measured | None) -> None:
        for _ in self._table_steps(measured):
            pass

    def _table_steps(self, measured: Measured | None) -> Iterator[None]:
        """Show figures, or none; the window is to be served in between."""
        self._measured = measured
        quality = None if measured is None else measured.quality
        self.model.show(quality)
        yield
        self.overlay.choose([])
        self._offer_colours()
        yield
        self.overlay.colour(self.model.quality, self.colour_combo.currentData())
        yield
        self.overlay.show_legend()
        if quality is not None:
            yield
            self.table.resizeColumnsToContents()
            self.status_label.setText(self._summary())
        self._enable()

    def _offer_colours(self) -> None:
        chosen = self.colour_combo.currentData() or DEFAULT_COLOUR
        self.colour_combo.blockSignals(True)
        self.colour_combo.clear()
        self.colour_combo.addItem("nothing", None)
        for key in self.model.columns:
            unit = f" ({COLUMNS[key].unit})" if COLUMNS[key].unit else ""
            self.colour_combo.addItem(COLUMNS[key].label + unit, key)
        self.colour_combo.setCurrentIndex(max(self.colour_combo.findData(chosen), 0))
        self.colour_combo.blockSignals(False)

    def _summary(self) -> str:
        if self.model.quality is None:
            return ""
        count = sum(bool(self.model.flagged(i)) for i in range(len(self.model.quality)))
        tiles = f"{count} of {len(self.model.quality)} tiles are flagged"
        return f"{tiles}. A flag is a reason to look, not a verdict."

    def _colour(self) -> None:
        self.overlay.colour(self.model.quality, self.colour_combo.currentData())
        self.overlay.show_legend()

    def selected(self) -> list[int]:
        """Tiles whose rows are selected."""
        rows = self._selection.selectedRows()
        return sorted(self.sorted.mapToSource(row).row() for row in rows)

    def select(self, i: int) -> None:
        """Select the row of tile `i`."""
        row = self.sorted.mapFromSource(self.model.index(i, 0))
        if row.isValid():
            flags = QItemSelectionModel.SelectionFlag
            self._selection.select(row, flags.ClearAndSelect | flags.Rows)
            self.table.scrollTo(row)

    def _rows_chosen(self, *changed: Any) -> None:
        indices = self.selected()
        self.overlay.choose(indices)
        if len(indices) == 1 and self.table.hasFocus():  # not where the canvas was clicked
            self.overlay.jump_to(indices[0])
        self._enable()

    def _clicked(self, viewer: Any, event: Any) -> Iterator[None]:
        """A click on the canvas (no drag) chooses the tile under it."""
        start = tuple(event.pos)
        yield
        while event.type == "mouse_move":
            yield
        moved = max(abs(a - b) for a, b in zip(start, tuple(event.pos), strict=True))
        if moved < 4 and self.isVisible() and self.model.quality is not None:
            i = self.overlay.tile_under(viewer.cursor.position)
            if i is not None:
                self.select(i)

    # -- the end --------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """Stop the worker, remove the overlays and let go of the viewer."""
        if self._closed:
            return
        self._closed = True
        self.leave_window()
        self._steps.drop()
        self.runner.close()
        self.viewer.layers.events.inserted.disconnect(self._find_results)
        self.viewer.layers.events.removed.disconnect(self._find_results)
        if self._clicked in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self._clicked)
        self.overlay.clear()
