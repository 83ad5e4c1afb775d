"""The dialog "Models": list, use, rename, import and export them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QDialog,
    QFileDialog,
    QHeaderView,
    QInputDialog,
    QMessageBox,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_txm_bgcorr.errors import TxmError
from napari_txm_bgcorr.gui.common.errors import errors_in_words
from napari_txm_bgcorr.gui.common.widgets import button_row, existing, named_button, wrapped_label
from napari_txm_bgcorr.gui.common.worker import Runner

from .messages import Complaint

__all__ = ["Done", "ModelsDialog", "Rows"]

COLUMNS = ("Name", "Network", "Error", "MB", "Date", "References")
WEIGHTS_FILTER = "Models (*.safetensors)"
EXPORT_FILTERS = {
    "Weights and card (*.safetensors)": ".safetensors",
    "ONNX (*.onnx)": ".onnx",
    "bioimage.io package (*.zip)": ".zip",
}


@dataclass(frozen=True)
class Rows:
    """Models that are there: rows of `models.store.model_rows`."""

    rows: tuple[Any, ...]


@dataclass(frozen=True)
class Done:
    """A change of a model is done."""

    words: str


def _list_again(words: str = "") -> Iterator[Any]:
    from napari_txm_bgcorr.models import model_rows

    yield Rows(tuple(model_rows()))
    if words:
        yield Done(words)


def _doing(work: Callable[[], str]) -> Iterator[Any]:
    """Do something with the models, then list them again."""
    try:
        with errors_in_words("models"):
            yield from _list_again(work())
    except TxmError as error:
        yield Complaint(error)


class ModelsDialog(QDialog):
    """Models by name, and what can be done with them.

    Parameters
    ----------
    parent : QWidget
    use : callable
        Takes a model's name, gives it to the correction panel, and says so.
    run : Path or None
        Run whose weights can be taken in under a name.
    """

    def __init__(self, parent: QWidget, use: Callable[[str], str], run: Path | None) -> None:
        super().__init__(parent)
        self.setObjectName("models_dialog")
        self.setWindowTitle("Models")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._use, self._run = use, run
        self.rows: tuple[Any, ...] = ()
        self.runner = Runner(self)
        self.runner.message.connect(self._hear)
        self.runner.ended.connect(lambda broken: self._show_buttons())
        self.table = _table()
        self.table.itemSelectionChanged.connect(self._show_buttons)
        self.label = wrapped_label("models_label")
        self._make_buttons()
        layout = QVBoxLayout(self)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.label)
        layout.addLayout(button_row(self.use_button, self.rename_button, self.remove_button))
        layout.addLayout(button_row(self.keep_button, self.import_button, self.export_button))
        self.resize(520, 320)
        self._do(lambda: "")

    def _make_buttons(self) -> None:
        self.use_button = named_button(
            "use_named_button", "Use", "Give it to Background correction"
        )
        self.rename_button = named_button("rename_button", "Rename…", "Give it another name")
        self.remove_button = named_button("remove_button", "Remove…", "Delete it from the list")
        self.import_button = named_button(
            "import_button", "Import…", "Take in a model file (.safetensors with its .json card)"
        )
        self.keep_button = named_button(
            "keep_run_button",
            "Keep run's…",
            "Take in the best weights of the attached run by a name",
        )
        self.export_button = named_button(
            "export_button",
            "Export…",
            "Write it as weights with their card, as ONNX, or as a bioimage.io package",
        )
        self.use_button.clicked.connect(self._use_chosen)
        self.rename_button.clicked.connect(self._ask_rename)
        self.remove_button.clicked.connect(self._ask_remove)
        self.import_button.clicked.connect(self._ask_import)
        self.keep_button.clicked.connect(self._ask_keep)
        self.export_button.clicked.connect(self._ask_export)

    @property
    def chosen(self) -> Any:
        """Selected row, or None."""
        marked = existing(self.table.selectionModel()).selectedRows()
        return self.rows[marked[0].row()] if marked else None

    def _do(self, work: Callable[[], str]) -> None:
        self.label.setText("…")
        self.runner.start(lambda stop, tell: _doing(work))
        self._show_buttons()

    def _hear(self, message: Any) -> None:
        if isinstance(message, Rows):
            self.rows = message.rows
            _fill(self.table, self.rows)
            self.label.setText("")
        elif isinstance(message, Done):
            self.label.setText(message.words)
        elif isinstance(message, Complaint):
            self.label.setText(str(message.error))

    def _show_buttons(self) -> None:
        row, free = self.chosen, not self.runner.running
        self.use_button.setEnabled(free and row is not None and not row.fault)
        self.export_button.setEnabled(free and row is not None and not row.fault)
        for button in (self.rename_button, self.remove_button):
            button.setEnabled(free and row is not None and not row.shipped)
        self.import_button.setEnabled(free)
        self.keep_button.setEnabled(free and self._run is not None)
        if row is not None and row.fault:
            self.label.setText(row.fault)

    def _use_chosen(self) -> None:
        try:
            self.label.setText(self._use(self.chosen.name))
        except TxmError as error:
            self.label.setText(str(error))

    def _ask_rename(self) -> None:
        old = self.chosen.name
        new, agreed = QInputDialog.getText(self, "Rename", "New name", text=old)
        if agreed and new.strip() != old:
            self._do(lambda: _renamed(old, new.strip()))

    def _ask_remove(self) -> None:
        name = self.chosen.name
        answer = QMessageBox.question(self, "Remove", f"Delete the weights of {name}?")
        if answer == QMessageBox.StandardButton.Yes:
            self._do(lambda: _removed(name))

    def _ask_import(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Take in a model", "", WEIGHTS_FILTER)
        if path:
            self._do(lambda: _imported(Path(path), None))

    def _ask_keep(self) -> None:
        run = self._run
        if run is None:
            return
        name, agreed = QInputDialog.getText(self, "Keep", "Name of the model", text=run.name)
        if agreed and name.strip():
            self._do(lambda: _imported(run, name.strip()))

    def _ask_export(self) -> None:
        row = self.chosen
        path, wanted = QFileDialog.getSaveFileName(
            self, "Export", f"{row.name}.safetensors", ";;".join(EXPORT_FILTERS)
        )
        if path:
            target = _with_suffix(Path(path), wanted)
            self._do(lambda: _exported(row.path, target))

    def done(self, result: int) -> None:
        """Wait for the thread before the dialog goes."""
        self.runner.close()
        super().done(result)


def _renamed(old: str, new: str) -> str:
    from napari_txm_bgcorr.models import rename_model

    rename_model(old, new)
    return f"{old} is now {new}"


def _removed(name: str) -> str:
    from napari_txm_bgcorr.models import remove_model

    return f"Removed {remove_model(name)}"


def _imported(source: Path, name: str | None) -> str:
    from napari_txm_bgcorr.models import import_model, unused_name

    if name is None:
        name = unused_name(source.stem)
    return f"Taken in as {import_model(source, name).stem}"


def _with_suffix(path: Path, wanted: str) -> Path:
    """Name with the suffix of the kind that was chosen, where the user has typed none of them."""
    if path.suffix in EXPORT_FILTERS.values():
        return path
    return path.with_name(path.name + EXPORT_FILTERS.get(wanted, ".safetensors"))


def _exported(source: Path, target: Path) -> str:
    from napari_txm_bgcorr.models.export import export_model

    export_model(source, target)
    return f"Written: {target}"


def _table() -> QTableWidget:
    table = QTableWidget(0, len(COLUMNS))
    table.setObjectName("models_table")
    table.setHorizontalHeaderLabels(list(COLUMNS))
    existing(table.horizontalHeaderItem(len(COLUMNS) - 1)).setToolTip(
        "Those it carries, to start from where images come without any"
    )
    existing(table.verticalHeader()).hide()
    table.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
    table.setSelectionMode(QTableWidget.SelectionMode.SingleSelection)
    table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
    header = existing(table.horizontalHeader())
    header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
    return table


def _fill(table: QTableWidget, rows: Sequence[Any]) -> None:
    table.setRowCount(len(rows))
    for place, row in enumerate(rows):
        error = "" if row.error is None else f"{100 * row.error:.2f} %"
        name = f"{row.name} (shipped)" if row.shipped else row.name
        name = f"⚠ {name}" if row.fault else name
        texts = (name, row.network, error, f"{row.megabytes:.1f}", row.date, row.references)
        for column, text in enumerate(texts):
            entry = QTableWidgetItem(text)
            entry.setToolTip(row.fault or str(row.path))
            table.setItem(place, column, entry)
