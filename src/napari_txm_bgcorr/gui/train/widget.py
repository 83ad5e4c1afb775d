"""The panel "Train background model"."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QSize
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QLabel,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_txm_bgcorr.errors import ConfigError, TxmError
from napari_txm_bgcorr.gui.common.dock import Docked
from napari_txm_bgcorr.gui.common.event_queue import Steps
from napari_txm_bgcorr.gui.common.plots import theme_colours
from napari_txm_bgcorr.gui.common.preferences import preferences
from napari_txm_bgcorr.gui.common.widgets import PanelColumn, TallArea, existing
from napari_txm_bgcorr.gui.common.worker import Runner, drop_when_gone

from .closing import ask_before_closing
from .data_scan import Level, look_at
from .data_step import DataStep
from .layers_as_data import selected_items
from .messages import Complaint, DataFound, Offers, Reading
from .monitor_step import RunStep
from .run_control import RunControl
from .session import DataItem, TrainSession, resolve_training
from .settings_step import TrainForm
from .tasks import find_offers, is_run, runs_folder
from .use_model import correct_session, use_model
from .validation_layers import TileLayers

if TYPE_CHECKING:
    import napari

__all__ = ["TrainWidget"]

PANEL_WIDTH = 340


class TrainWidget(Docked, QWidget):
    """Data, settings and the run, one above the other.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
    """

    title = "Train background model"

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.session = TrainSession(device=preferences().device)
        self.runs = runs_folder()
        self.reader, self.finder = Runner(self), Runner(self)
        self._closed = False
        self._complaint = ""
        self._waiting: list[DataItem] = []
        self._reading: tuple[DataItem, ...] = ()
        self._level = Level()
        self._steps = Steps(self)
        self._make_widgets()
        self.control = RunControl(self.run_step, TileLayers(napari_viewer), self._steps.add, self)
        self._connect()
        self._take_theme()
        self._show_buttons()
        self.finder.start(lambda stop, tell: find_offers(stop, self.runs))

    @property
    def busy(self) -> bool:
        """True while data are being read or a message waits to be shown."""
        return self.reader.busy or bool(self._waiting) or bool(self._steps)

    def _make_widgets(self) -> None:
        self.data_step = DataStep()
        self.form = TrainForm(self.session)
        self.run_step = RunStep()
        self.data_drop_zone = self.data_step.drop_zone
        self.preset_combo = self.form.preset_combo
        self.loss_plot = self.run_step.loss_curves.plot
        run = self.run_step
        self.start_button, self.pause_button = run.start_button, run.pause_button
        self.stop_button, self.resume_button = run.stop_button, run.resume_button
        self.attach_button, self.models_button = run.attach_button, run.models_button
        self.use_model_button, self.status_label = run.use_model_button, run.status_label
        inside = QWidget()
        layout = PanelColumn(inside)
        layout.setContentsMargins(8, 4, 8, 4)
        layout.setSpacing(3)
        for title, step, stretch in (
            ("1  Data", self.data_step, 0),
            ("2  Settings", self.form, 0),
            ("3  Run", self.run_step, 1),
        ):
            head = QLabel(f"<b>{title}</b>")
            head.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
            layout.addWidget(head)
            layout.addWidget(step, stretch)
        self.area = TallArea()
        self.area.hold(inside)
        around = QVBoxLayout(self)
        around.setContentsMargins(0, 0, 0, 0)
        around.addWidget(self.area)

    def sizeHint(self) -> QSize:
        """Ask for no more height than a small screen has."""
        return QSize(PANEL_WIDTH, existing(self.area.widget()).sizeHint().height())

    def _connect(self) -> None:
        data, run = self.data_step, self.run_step
        data.paths.connect(self.add_paths)
        data.layers.connect(self.add_layers)
        data.cleared.connect(self.clear_data)
        data.removed.connect(self.remove_item)
        self.form.advanced_button.toggled.connect(self._show_advanced)
        run.start_button.clicked.connect(self.start)
        run.pause_button.clicked.connect(self.control.pause)
        run.stop_button.clicked.connect(self.control.stop)
        run.resume_button.clicked.connect(lambda: self.control.resume(self.session.device))
        run.use_model_button.clicked.connect(self.use_model)
        run.attach_button.clicked.connect(self._ask_run)
        run.copy_button.clicked.connect(self._copy_command)
        run.models_button.clicked.connect(self._show_models)
        self.control.changed.connect(self._show_buttons)
        self.control.complained.connect(self._complain)
        for runner in (self.reader, self.finder):
            runner.message.connect(lambda message: self._steps.add(self._hear(message)))
        self.reader.ended.connect(lambda broken: self._steps.add(self._read_ended()))
        self.viewer.events.theme.connect(self._take_theme)
        drop_when_gone(self, self.reader, self.finder, self.control.watcher)

    # -- data ---------------------------------------------------------------------------------

    def add_paths(self, paths: list[Path]) -> None:
        """Take files, folders and libraries as data; a run's folder is attached to."""
        if self.status_label.text() == self._complaint:
            self.status_label.setText("")
        for path in map(Path, paths):
            if is_run(path):
                self.attach(path)
            else:
                self._add(DataItem(path, self.data_step.role, path.name))

    def take_references(self, paths: list[Path]) -> None:
        """Make ready to fine-tune on references."""
        self.preset_combo.setCurrentIndex(max(self.preset_combo.findData("fine-tune"), 0))
        roles = self.data_step.role_combo
        roles.setCurrentIndex(max(roles.findData("references"), 0))
        self.add_paths(paths)

    def add_layers(self) -> None:
        """Take the layers that are selected in napari."""
        try:
            for item in selected_items(self.viewer, self.data_step.role):
                self._add(item)
        except TxmError as error:
            self._complain(error)

    def _add(self, item: DataItem) -> None:
        known = (*self.session.items, *self._waiting, *self._reading)
        if _key(item) not in map(_key, known):
            self._waiting.append(item)
        if not self.reader.running:
            self._read_next()

    def _read_next(self) -> None:
        self._reading, self._waiting = tuple(self._waiting), []
        if items := self._reading:
            level = self._level
            self.reader.start(lambda stop, tell: look_at(items, level, stop))

    def clear_data(self) -> None:
        """Forget all data."""
        self.reader.drop()
        self._waiting, self._reading, self._level = [], (), Level()
        self.session.items = ()
        self.data_step.drop_thumbs()
        self.data_step.show_items(())

    def remove_item(self, key: str) -> None:
        """Forget one file, folder or layer."""
        self.session.items = tuple(i for i in self.session.items if _key(i) != key)
        if not self.session.items:
            self._level = Level()
        self.data_step.drop_thumbs(key)
        self.data_step.show_items(self.session.items)

    def _show_advanced(self, on: bool) -> None:
        """Swap the pictures for the settings or back; first hide, or Qt would widen the window."""
        steps = [self.data_step.set_compact, self.form.show_advanced]
        for show in steps if on else reversed(steps):
            show(on)
            for step in (self.data_step, self.form):
                existing(step.layout()).activate()  # or what is hidden would still count

    # -- the run ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a new run with the data and settings that are shown."""
        if not self.start_button.isEnabled():
            return
        if self.reader.busy or self._waiting:
            self.status_label.setText("Data are still being read; press Start again then")
            return
        try:
            job = resolve_training(self.session, self.runs)
        except TxmError as error:
            self._complain(error)
            return
        self.control.start(job)

    def attach(self, run: Path) -> None:
        """Watch the run in a folder, whoever started it and wherever it is computed."""
        if not is_run(run):
            self._complain(
                ConfigError(f"{run}: no run's folder (no config.yaml in it); choose another")
            )
            return
        self.control.attach(run)

    def use_model(self) -> None:
        """Give the best weights of the run to the correction panel."""
        if self.control.run is None:
            return
        try:
            session = correct_session(self.viewer, self.window_around())
            said = use_model(session, str(self.control.run / "model.safetensors"))
        except TxmError as error:
            self._complain(error)
            return
        self.status_label.setText(said)

    def _ask_run(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "A run's folder", str(self.runs))
        if name:
            self.attach(Path(name))

    def _copy_command(self) -> None:
        try:
            command = self.control.command(lambda: resolve_training(self.session, self.runs))
        except TxmError as error:
            self._complain(error)
            return
        existing(QApplication.clipboard()).setText(command)
        self.status_label.setText(f"Copied: {command}")

    def _show_models(self) -> None:
        from .models_dialog import ModelsDialog

        run = self.control.run if self.control.has_model else None
        ModelsDialog(self, self._use_named, run).open()

    def _use_named(self, model: str) -> str:
        return use_model(correct_session(self.viewer, self.window_around()), model)

    def _show_buttons(self) -> None:
        state, live = self.control.state, self.control.live
        self.start_button.setEnabled(not live)
        self.pause_button.setEnabled(state == "running")
        self.stop_button.setEnabled(live and state != "stopping")
        self.resume_button.setEnabled(state in ("paused", "stopped", "failed", "died"))
        self.use_model_button.setEnabled(self.control.has_model)
        self.form.setEnabled(not live)

    # -- messages and the window --------------------------------------------------------------

    def _hear(self, message: Any) -> Iterator[None]:
        if isinstance(message, Reading):
            self.data_step.show_items(self.session.items, message.text)
        elif isinstance(message, DataFound):
            self.session.items = (*self.session.items, message.item)
            self.data_step.add_thumbs(_key(message.item), message.item.role, message.thumbs)
            yield
            self.data_step.show_items(self.session.items)
        elif isinstance(message, Complaint):
            self._complain(message.error)
        elif isinstance(message, Offers):
            yield
            self.form.offer(message.devices, message.models, message.networks, message.presets)
            if message.live is not None and self.control.run is None:
                self.attach(message.live)

    def _read_ended(self) -> Iterator[None]:
        self.data_step.show_items(self.session.items)
        self._read_next()
        yield

    def _complain(self, error: TxmError) -> None:
        self._complaint = str(error)
        self.status_label.setText(self._complaint)
        show_error(self._complaint)

    def _take_theme(self, event: Any = None) -> None:
        theme = theme_colours(self.viewer.theme)
        self.run_step.set_theme(theme)
        self.data_step.set_theme(theme["warning"])

    def may_close(self) -> bool:
        """Ask what becomes of a live run before the main window closes."""
        if self._closed or not self.control.live:
            return True
        answer = ask_before_closing(self, self.control.run)
        self.control.stop_when_closed = answer == "stop"
        return answer != "stay"

    def shut_down(self) -> None:
        """Stop every thread and let go of the viewer; a run goes on unless told to stop."""
        if self._closed:
            return
        self._closed = True
        self._steps.drop()
        self.run_step.stop_drawing()
        self.viewer.events.theme.disconnect(self._take_theme)
        self.leave_window()
        self.control.close()
        for runner in (self.reader, self.finder):
            runner.close()


def _key(item: DataItem) -> str:
    return f"{item.role}:{item.path}"
