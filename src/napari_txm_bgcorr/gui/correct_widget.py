"""The panel "Background correction"."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_txm_bgcorr.core.errors import TxmError
from napari_txm_bgcorr.gui.choices import ChoicesForm
from napari_txm_bgcorr.gui.compare import CompareBar
from napari_txm_bgcorr.gui.drop_zone import DropZone
from napari_txm_bgcorr.gui.layer_book import LayerBook
from napari_txm_bgcorr.gui.messages import (
    Advanced,
    Choices,
    Failed,
    Finished,
    Message,
    Opened,
    Preparing,
    Saved,
    Started,
)
from napari_txm_bgcorr.gui.outputs import saved_path
from napari_txm_bgcorr.gui.preferences import preferences
from napari_txm_bgcorr.gui.save_bar import SaveBar
from napari_txm_bgcorr.gui.session import Session, resolve
from napari_txm_bgcorr.gui.tasks import (
    correct_job,
    find_choices,
    read_paths,
    save_results,
)
from napari_txm_bgcorr.gui.worker import Runner

if TYPE_CHECKING:
    import napari

__all__ = ["CorrectWidget"]

REFRESH_MS = 200
PANEL_WIDTH = 330


class CorrectWidget(QScrollArea):
    """Input, choices, Correct and Cancel, progress, comparison and saving.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        from napari_txm_bgcorr.engine.methods import method_names

        self.viewer = napari_viewer
        kept = preferences()
        self.session = Session(
            method=kept.method,
            model=kept.model,
            device=kept.device,
            save_format=kept.save_format,
        )
        self.book = LayerBook(napari_viewer)
        self._failures: list[str] = []
        self._waiting: list[Path] = []
        self._correct_when_read = False
        self._closed = False
        self.runner, self.reader, self.finder = Runner(self), Runner(self), Runner(self)
        self._make_widgets(method_names())
        self._connect()
        self._look()
        self.finder.start(lambda stop, tell: find_choices(stop))

    # -- building -------------------------------------------------------------------------

    def _make_widgets(self, methods: list[str]) -> None:
        self.drop_zone = DropZone()
        self.input_label = _words("input_label")
        self.form = ChoicesForm(self.session, methods)
        self.correct_button = _button("correct_button", "Correct", "Correct the selected layers")
        self.cancel_button = _button("cancel_button", "Cancel", "Stop; tiles already done stay")
        self.progress_bar = QProgressBar()
        self.progress_bar.setObjectName("progress_bar")
        self.progress_bar.setTextVisible(True)
        self.status_label = _words("status_label")
        self.status_label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.compare = CompareBar(self.book.pairs)
        self.save_bar = SaveBar(self.session)
        self.save_button = self.save_bar.button
        self.method_combo = self.form.method_combo
        self.model_combo = self.form.model_combo
        self.device_combo = self.form.device_combo

        buttons = QHBoxLayout()
        buttons.addWidget(self.correct_button, 2)
        buttons.addWidget(self.cancel_button, 1)
        inside = QWidget()
        layout = QVBoxLayout(inside)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(7)
        for part in (self.drop_zone, self.input_label, self.form):
            layout.addWidget(part)
        layout.addLayout(buttons)
        for part in (self.progress_bar, self.status_label, self.compare, self.save_bar):
            layout.addWidget(part)
        layout.addStretch(1)
        self.setWidget(inside)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumWidth(inside.minimumSizeHint().width())
        self._show_idle("")

    def sizeHint(self) -> QSize:
        """Ask for the height of the contents, so that no scroll bar is needed."""
        inside = self.widget().sizeHint()
        return QSize(max(PANEL_WIDTH, self.minimumWidth()), inside.height())

    def _connect(self) -> None:
        self.drop_zone.dropped.connect(self.open_paths)
        self.correct_button.clicked.connect(self.correct)
        self.cancel_button.clicked.connect(self.cancel)
        self.save_bar.chosen.connect(self.save)
        for runner in (self.runner, self.reader, self.finder):
            runner.message.connect(self._hear)
        self.runner.ended.connect(self._run_ended)
        self.reader.ended.connect(self._read_ended)
        layers = self.viewer.layers
        layers.selection.events.changed.connect(self._look)
        layers.events.inserted.connect(self._look)
        layers.events.removed.connect(self._look)
        self._dirty = False
        self._timer = QTimer(self)
        self._timer.setInterval(REFRESH_MS)
        self._timer.timeout.connect(self._redraw)
        runners = (self.runner, self.reader, self.finder)
        self.destroyed.connect(lambda: [runner.drop() for runner in runners])

    # -- what the user does ---------------------------------------------------------------

    def open_paths(self, paths: list[Path]) -> None:
        """Read files and folders and show them; they become the selected layers."""
        self._waiting.extend(Path(path) for path in paths)
        if not self.reader.running:
            self._read_next()

    def correct(self) -> None:
        """Correct the selected layers, or, while files are being read, these when they are."""
        if self.runner.running:
            return
        if self.reader.running:
            self._correct_when_read = True
            self.correct_button.setEnabled(False)
            return
        self._look()
        try:
            job = resolve(self.session)
        except TxmError as error:
            self._complain(error)
            return
        self._failures = []
        self.book.remember(job)
        self._show_busy("Starting …")
        self.runner.start(lambda stop, tell: correct_job(job, stop, tell))

    def cancel(self) -> None:
        """Stop what is under way; what is done stays."""
        self._correct_when_read = False
        self._waiting.clear()
        self.runner.cancel()
        self.reader.cancel()
        self.cancel_button.setEnabled(False)
        self.status_label.setText("Cancelling …")

    def save(self, folder: Path) -> None:
        """Write the latest results into a folder; ask before replacing earlier ones."""
        results = self.book.results()
        if self.runner.running or not results:
            return
        targets = [saved_path(result.name, folder, self.session.save_format) for result in results]
        overwrite = any(target.exists() for target in targets)
        if overwrite and not self._may_replace(targets):
            return
        self._failures = []
        save_format = self.session.save_format
        self._show_busy("Saving …")
        self.runner.start(
            lambda stop, tell: save_results(results, Path(folder), save_format, overwrite, stop)
        )

    def _may_replace(self, targets: list[Path]) -> bool:
        there = "\n".join(target.name for target in targets if target.exists())
        answer = QMessageBox.question(self, "Replace?", f"Replace what is there?\n{there}")
        return bool(answer == QMessageBox.StandardButton.Yes)

    # -- what the worker says -------------------------------------------------------------

    def _hear(self, message: Message) -> None:
        if isinstance(message, Advanced):
            self._show_progress(message)
        elif isinstance(message, Preparing):
            self._show_busy(message.text)
        elif isinstance(message, Opened):
            data, arguments, kind = message.layer
            self.book.opened(Layer.create(data, arguments, kind))
        elif isinstance(message, Started):
            self.book.show(message.key, message.result)
            self.compare.slider.setValue(100)
        elif isinstance(message, Finished):
            self.book.finish(message.result)
            self._redraw(force=True)
        elif isinstance(message, Failed):
            self._failures.append(str(message.error))
            self._complain(message.error)
        elif isinstance(message, Saved):
            self.status_label.setText(f"Saved {message.path}")
        elif isinstance(message, Choices):
            self.form.show_choices(message)

    def _show_progress(self, message: Advanced) -> None:
        self._dirty = True
        self.progress_bar.setRange(0, message.total)
        self.progress_bar.setValue(message.done)
        self.progress_bar.setFormat(f"%v of %m tiles, {_left(message.seconds_left)} left")
        if message.text and self.cancel_button.isEnabled():
            self.status_label.setText(message.text)

    def _run_ended(self, broken: bool) -> None:
        self._redraw(force=True)
        self._show_idle(self._outcome(broken))

    def _outcome(self, broken: bool) -> str:
        if broken:
            return "Stopped by a fault of the program; napari shows the details."
        if self._failures:
            return "\n".join(self._failures)
        said = self.status_label.text()
        return said if said.startswith("Saved") else self.book.outcome()

    def _read_ended(self, broken: bool) -> None:
        if self._waiting:
            self._read_next()
            return
        self._redraw(force=True)
        if not self.runner.running:
            self._show_idle("\n".join(self._failures))
        if self._correct_when_read and not broken and not self._failures:
            self._correct_when_read = False
            self.correct()
        self._correct_when_read = False

    def _read_next(self) -> None:
        paths, self._waiting = self._waiting, []
        self.book.begin_opening()
        if not self.runner.running:
            self._failures = []
            self._show_busy(f"Reading {paths[0].name} …")
            self.correct_button.setEnabled(True)
        self.reader.start(lambda stop, tell: read_paths(paths, stop))

    # -- what the panel shows -------------------------------------------------------------

    def _look(self, event: Any = None) -> None:
        """Take the selected layers as the input."""
        if self._closed:
            return
        self.session.inputs = self.book.selected_inputs()
        self.input_label.setText(self.book.describe_inputs(self.session.inputs))
        self.form.again_box.setVisible(
            self.form.again_box.isChecked()
            or any(info.role in ("corrected", "background") for info in self.session.inputs)
        )
        self.compare.refresh()
        self.save_button.setEnabled(bool(self.book.results()) and not self.runner.running)

    def _show_busy(self, text: str) -> None:
        self.correct_button.setEnabled(False)
        self.save_button.setEnabled(False)
        self.cancel_button.setEnabled(True)
        self.progress_bar.setRange(0, 0)
        self.status_label.setText(text)
        self._timer.start()

    def _show_idle(self, text: str) -> None:
        self.correct_button.setEnabled(True)
        self.cancel_button.setEnabled(False)
        self.save_button.setEnabled(bool(self.book.results()))
        self.progress_bar.setRange(0, 1)
        self.progress_bar.setValue(0)
        self.progress_bar.setFormat("")
        self.status_label.setText(text)
        if hasattr(self, "_timer"):
            self._timer.stop()

    def _complain(self, error: TxmError) -> None:
        self.status_label.setText(str(error))
        show_error(str(error))

    def _redraw(self, force: bool = False) -> None:
        """Show the tiles that have come since; seldom enough to leave the window its time."""
        if not (self._dirty or force):
            return
        self._dirty = False
        began = time.monotonic()
        self.book.redraw()
        spent_ms = 1000 * (time.monotonic() - began)
        self._timer.setInterval(max(REFRESH_MS, int(8 * spent_ms)))

    # -- going away -----------------------------------------------------------------------

    def event(self, event: QEvent) -> bool:
        """Stop the work when the panel is taken out of its dock or the window closes."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is None:
                self.shut_down()
            else:
                self.window().installEventFilter(self)
        return bool(super().event(event))

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Watch the main window closing."""
        if event.type() == QEvent.Type.Close:
            QTimer.singleShot(0, self._after_close)
        return bool(super().eventFilter(watched, event))

    def _after_close(self) -> None:
        if not self.window().isVisible():
            self.shut_down()

    def shut_down(self) -> None:
        """Stop every thread and let go of the viewer."""
        if self._closed:
            return
        self._closed = True
        self._timer.stop()
        layers = self.viewer.layers
        layers.selection.events.changed.disconnect(self._look)
        layers.events.inserted.disconnect(self._look)
        layers.events.removed.disconnect(self._look)
        for runner in (self.runner, self.reader, self.finder):
            runner.close()


def _words(name: str) -> QLabel:
    label = QLabel()
    label.setObjectName(name)
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    return label


def _button(name: str, text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setObjectName(name)
    button.setToolTip(tip)
    return button


def _left(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
