"""The panel "Background correction"."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QSize, QTimer
from qtpy.QtWidgets import QMessageBox, QVBoxLayout, QWidget

from napari_txm_bgcorr.errors import TxmError
from napari_txm_bgcorr.gui.common.dock import Docked
from napari_txm_bgcorr.gui.common.drop_zone import DropZone
from napari_txm_bgcorr.gui.common.event_queue import Steps
from napari_txm_bgcorr.gui.common.messages import Advanced, Failed, Preparing, Saved, Shown
from napari_txm_bgcorr.gui.common.preferences import preferences
from napari_txm_bgcorr.gui.common.widgets import TallArea, existing, wrapped_label
from napari_txm_bgcorr.gui.common.worker import Runner, drop_when_gone
from napari_txm_bgcorr.gui.layers.convert import warm_up
from napari_txm_bgcorr.gui.layers.manager import LayerBook
from napari_txm_bgcorr.gui.layers.outputs import saved_path
from napari_txm_bgcorr.gui.layers.stitched import stitch_results, stitched_path
from napari_txm_bgcorr.gui.layers.view import view_of
from napari_txm_bgcorr.gui.session import Session, resolve

from .compare import CompareBar
from .form import ChoicesForm
from .messages import Choices, Doubted, Finished, Message, Opened, Reopened, Started
from .notice import Notice
from .save_bar import SaveBar
from .tasks import correct_job, find_choices, read_paths, save_results
from .uncertainty_button import UncertaintyButton
from .watch_bar import WatchBar
from .work_bar import WorkBar

if TYPE_CHECKING:
    import napari

__all__ = ["CorrectWidget"]

REFRESH_MS = 200
BEATS_TO_PAINT = 3
PANEL_WIDTH = 340


class CorrectWidget(Docked, TallArea):
    """Input, choices, Correct and Cancel, progress, comparison and saving.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
    """

    title = "Background correction"

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        from napari_txm_bgcorr.backgrounds import method_names

        warm_up()

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
        self._unread: list[str] = []
        self._correcting, self._said = False, ""
        self._fitted: tuple[float, ...] = ()
        self._waiting: list[Path] = []
        self._reading = self._correct_when_read = False
        self._closed = False
        self._shown = Event()
        self._steps = Steps(self)
        self.runner, self.reader, self.finder = Runner(self), Runner(self), Runner(self)
        self._make_widgets(method_names())
        self._connect()
        self._look()
        self.finder.start(lambda stop, tell: find_choices(stop))

    @property
    def busy(self) -> bool:
        """True while a task is at work or a message waits to be shown."""
        return self.runner.busy or self.reader.busy or bool(self._steps)

    def _make_widgets(self, methods: list[str]) -> None:
        self.drop_zone = DropZone()
        self.watch_bar = WatchBar(self)
        self.input_label = wrapped_label("input_label")
        self.form = ChoicesForm(self.session, methods)
        self.work = WorkBar()
        self.correct_button, self.cancel_button = self.work.correct_button, self.work.cancel_button
        self.progress_bar, self.status_label = self.work.progress_bar, self.work.status_label
        self.notice = Notice(self.viewer, self)
        self.uncertainty_button = UncertaintyButton(self.viewer, self.book.results)
        self.compare = CompareBar(self.book.pairs, self.uncertainty_button)
        self.save_bar = SaveBar(self.session)
        self.save_button = self.save_bar.button
        self.method_combo = self.form.method_combo
        self.model_combo = self.form.model_combo
        self.device_combo = self.form.device_combo

        inside = QWidget()
        layout = QVBoxLayout(inside)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(7)
        for part in (self.drop_zone, self.watch_bar, self.input_label, self.form, self.work,
                     self.notice, self.compare, self.save_bar):  # fmt: skip
            layout.addWidget(part)
        layout.addStretch(1)
        self.hold(inside)

    def sizeHint(self) -> QSize:
        """Ask for the height of the contents, so that no scroll bar is needed."""
        inside = existing(self.widget()).sizeHint()
        return QSize(max(PANEL_WIDTH, self.minimumWidth()), inside.height())

    def _connect(self) -> None:
        self.drop_zone.dropped.connect(self.open_paths)
        self.correct_button.clicked.connect(self.correct)
        self.cancel_button.clicked.connect(self.cancel)
        self.save_bar.chosen.connect(self.save)
        self.save_bar.stitch_chosen.connect(self.stitch)
        self.reader.message.connect(lambda message: self._steps.add(self._hear_reader(message)))
        for runner in (self.runner, self.finder):
            runner.message.connect(lambda message: self._steps.add(self._hear(message)))
        self.runner.ended.connect(lambda broken: self._steps.add(self._run_ended(broken)))
        self.reader.ended.connect(lambda broken: self._steps.add(self._read_ended(broken)))
        layers = self.viewer.layers
        layers.selection.events.changed.connect(self._look)
        layers.events.inserted.connect(self._look)
        layers.events.removed.connect(self._look)
        self.viewer.events.theme.connect(self.notice.take_theme)
        self._dirty = False
        self._timer = QTimer(self)
        self._timer.setInterval(REFRESH_MS)
        self._timer.timeout.connect(self._redraw)
        drop_when_gone(self, self.runner, self.reader, self.finder)

    def open_paths(self, paths: list[Path]) -> None:
        """Read files and folders and show them; they become the selected layers."""
        self._waiting.extend(Path(path) for path in paths)
        if not self._reading:
            self._read_next()

    def correct(self) -> None:
        """Correct the selected layers, or, while files are being read, these when they are."""
        if not self.correct_button.isEnabled():
            return
        if self._reading:
            self._correct_when_read = True
            self.correct_button.setEnabled(False)
            return
        self._look()
        try:
            job = resolve(self.session)
        except TxmError as error:
            self._complain(error)
            return
        self._failures, self._unread, self._correcting = [], [], True
        self._doubts: dict[str, None] = {}
        self.notice.tell(())
        self.book.remember(job)
        shown = self._shown = Event()
        self.runner.start(lambda stop, tell: correct_job(job, stop, tell, shown))
        self._show_busy("Starting …")

    def cancel(self) -> None:
        """Stop what is under way; what is done stays."""
        self._correct_when_read = False
        self._waiting.clear()
        self.runner.cancel()
        self.reader.cancel()
        self.work.show_cancelling()

    def save(self, folder: Path) -> None:
        """Write the latest results into a folder; ask before replacing earlier ones."""
        results = self.book.results()
        if self.runner.running or not results:
            return
        save_format = self.session.save_format
        targets = [saved_path(result.name, folder, save_format) for result in results]
        self._write(
            targets,
            lambda replace, stop, tell: save_results(results, folder, save_format, replace, stop),
        )

    def stitch(self, folder: Path) -> None:
        """Blend the tiles of the latest mosaics into one picture each, saved and shown."""
        results = [each for each in self.book.results() if each.scan.kind == "mosaic"]
        if self.runner.running or not results:
            return
        self._write(
            [stitched_path(result.name, folder) for result in results],
            lambda replace, stop, tell: stitch_results(results, folder, replace, stop, tell),
        )

    def _write(self, targets: list[Path], task: Any) -> None:
        """Start a task that writes; ask before it replaces anything."""
        there = [target.name for target in targets if target.exists()]
        if there:
            question = "Replace what is there?\n" + "\n".join(there)
            answer = QMessageBox.question(self, "Replace?", question)
            if answer != QMessageBox.StandardButton.Yes:
                return
        self._failures, self._unread, self._correcting = [], [], False
        self.runner.start(lambda stop, tell: task(bool(there), stop, tell))
        self._show_busy("Saving …")

    def _hear_reader(self, message: Message) -> Iterator[None]:
        """Hear of reading; while a correction or saving runs, the bar and the words are its."""
        if isinstance(message, Failed):
            self._unread.append(str(message.error))
            self._complain(message.error)
        elif isinstance(message, (Advanced, Preparing)) and self.runner.running:
            self._dirty = True
        else:
            yield from self._hear(message)

    def _hear(self, message: Message) -> Iterator[None]:
        if isinstance(message, Advanced):
            self._dirty = True
            self.work.show_progress(message)
        elif isinstance(message, Preparing):
            self._show_busy(message.text)
        elif isinstance(message, Opened):
            yield from self._show_first(self.book.reopened([message.layer]))
        elif isinstance(message, Reopened):
            yield from self._show_first(self.book.reopened(message.layers))
        elif isinstance(message, Started):
            self.compare.slider.setValue(100)
            yield from self.book.show(message.key, message.result)
            for _ in range(BEATS_TO_PAINT):  # or the worker takes the cores from the painting
                yield
            self._shown.set()
        elif isinstance(message, Finished):
            yield from self.book.finish(message.result)
            self._redraw(force=True)
            if message.result.registered and self._fitted == view_of(self.viewer):
                self._fit()
        elif isinstance(message, Failed):
            self._failures.append(str(message.error))
            self._complain(message.error)
        elif isinstance(message, Saved):
            self.status_label.setText(f"Saved {message.path}")
        elif isinstance(message, Shown):
            for layer in message.layers:
                self.book.show_picture(layer)
                yield
        elif isinstance(message, Doubted):
            self._doubts |= dict.fromkeys(message.sentences)
            self.notice.tell(tuple(self._doubts), message.references)
        elif isinstance(message, Choices):
            self.form.show_choices(message)

    def _show_first(self, steps: Iterator[None]) -> Iterator[None]:
        """Show layers; with the first one napari's controls narrow the canvas: fit it again."""
        first = not len(self.viewer.layers)
        yield from steps
        if first:
            for _ in range(BEATS_TO_PAINT):
                yield
            self._fit()

    def _fit(self) -> None:
        """Bring everything into view, and note what is in view then."""
        self.viewer.reset_view()
        self._fitted = view_of(self.viewer)

    def _run_ended(self, broken: bool) -> Iterator[None]:
        said = self._outcome(broken)
        if self._reading:  # it goes on
            self._said, self._unread = said, []
            self._show_busy(said)
        else:
            self._show_idle(said)
        yield

    def _outcome(self, broken: bool) -> str:
        if broken:
            return "Stopped by a fault of the program; napari shows the details."
        said = list(self._failures)
        status = self.status_label.text()
        if self._correcting:
            came = self.book.outcome("Stopped" if said else "Cancelled")
            said += [came] if came != "Stopped" else []
        elif not said:
            said.append(status if status.startswith("Saved") else "Cancelled")
        return "\n".join([*said, *self._unread])

    def _read_ended(self, broken: bool) -> Iterator[None]:
        if self._waiting:
            self._read_next()
            return
        yield from self.book.overviews_done()
        self._reading = False
        if not self.runner.running:
            self._show_idle("\n".join(each for each in (self._said, *self._unread) if each))
        self._said = ""
        if self._correct_when_read and not broken and not self._unread:
            self._correct_when_read = False
            self.correct()
        self._correct_when_read = False

    def _read_next(self) -> None:
        self._reading = True
        paths, self._waiting = self._waiting, []
        self.book.begin_opening()
        if not self.runner.running:
            self._unread = []
        self.reader.start(lambda stop, tell: read_paths(paths, stop))
        if not self.runner.running:
            self._show_busy(f"Reading {paths[0].name} …")

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
        self.save_bar.enable([] if self.runner.running else self.book.results())

    def _show_busy(self, text: str) -> None:
        # While files are read Correct may be pressed: it follows the reading.
        reading = self._reading and not self.runner.running
        self.work.show_busy(text, may_correct=reading and not self._correct_when_read)
        self.save_bar.enable([])
        self._timer.start()

    def _show_idle(self, text: str) -> None:
        self.work.show_idle(text)
        self.save_bar.enable(self.book.results())
        self.uncertainty_button.refresh()
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
        if self.runner.busy or force:
            self.book.redraw_results()
        self.book.redraw_opened()
        spent_ms = 1000 * (time.monotonic() - began)
        self._timer.setInterval(max(REFRESH_MS, int(8 * spent_ms)))

    def shut_down(self) -> None:
        """Stop every thread and let go of the viewer."""
        if self._closed:
            return
        self._closed = True
        self.leave_window()
        self.watch_bar.close_down()
        self._timer.stop()
        self._steps.drop()
        layers = self.viewer.layers
        layers.selection.events.changed.disconnect(self._look)
        layers.events.inserted.disconnect(self._look)
        layers.events.removed.disconnect(self._look)
        self.viewer.events.theme.disconnect(self.notice.take_theme)
        for runner in (self.runner, self.reader, self.finder):
            runner.close()
