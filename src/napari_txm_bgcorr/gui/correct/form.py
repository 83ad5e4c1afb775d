"""The form of the panel: method, model, references, darks, device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QWidget,
)

from napari_txm_bgcorr.backgrounds import COMBINE, JOINT_BY_DEFAULT, LEARNED
from napari_txm_bgcorr.gui.common.drop_zone import FILE_FILTER, local_paths
from napari_txm_bgcorr.gui.session import Session, model_label
from napari_txm_bgcorr.io import APERTURE

from .messages import Choices

__all__ = ["ChoicesForm", "PathsField", "narrow_combo"]

METHOD_HELP = {
    "auto": "The network, with the best prior at hand: a reference, or the scan's own tiles",
    "generator": "The network alone, one tile at a time",
    "captured": "Reference images: one, or several interpolated in time",
    "tile-median": "Median of all tiles of a mosaic; needs three tiles or more",
    "smooth": "A smooth surface through each tile; no reference needed",
    "envelope": "A polynomial over the brightest parts of each tile; no reference needed",
    "eigen-flats": "Principal components of several references, fitted to each tile",
}


COMBINE_HELP = {
    "interpolated": "Mean of each visit to the reference position, in time between visits",
    "mean": "Mean of all, pixel by pixel, as other programs do",
    "median": "Median of all, pixel by pixel, as other programs do",
    "levelled-mean": "As interpolated, with the references of a visit brought to one level",
    "levelled-median": "The same with their median, which ignores cosmic rays",
}


def narrow_combo(name: str, tip: str) -> QComboBox:
    """Make a combo box that does not widen the panel with its longest entry."""
    combo = QComboBox()
    combo.setObjectName(name)
    combo.setToolTip(tip)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(10)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return combo


class PathsField(QWidget):
    """A list of files and folders in one line: how many, with buttons to add and to clear.

    `more` buttons are offered while the list is empty, in the place of the one that clears it.
    """

    def __init__(self, name: str, tip: str, changed: Any, *more: tuple[str, str, Any]) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setAcceptDrops(True)
        self.setToolTip(tip)
        self._tip, self._changed = tip, changed
        self._paths: tuple[Path, ...] = ()
        self.words = QLabel("none")
        self.words.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(self.words, 1)
        buttons = {}
        for text, help_text, action in (
            ("Files…", f"Add image files: {tip}", self._ask_files),
            ("Folder…", f"Add a folder: {tip}", self._ask_folder),
            *more,
            ("Clear", "Remove all from this list", lambda: self.set_paths(())),
        ):
            button = QPushButton(text)
            button.setToolTip(help_text)
            button.clicked.connect(action)
            button.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
            layout.addWidget(button)
            buttons[text] = button
        self._more = [buttons[text] for text, *_ in more]
        self._clear = buttons["Clear"]
        self._offer()

    def _offer(self) -> None:
        for button in self._more:
            button.setVisible(not self._paths)
        self._clear.setVisible(bool(self._paths) or not self._more)

    def set_paths(self, paths: tuple[Path, ...]) -> None:
        """Replace the list."""
        self._paths = tuple(dict.fromkeys(paths))
        count = len(self._paths)
        self.words.setText({0: "none", 1: self._paths[0].name if count else ""}.get(
            count, f"{count} paths"))  # fmt: skip
        self.setToolTip("\n".join([self._tip, *map(str, self._paths)]))
        self._offer()
        self._changed(self._paths)

    def add(self, paths: list[Path]) -> None:
        """Put paths behind those already there."""
        self.set_paths((*self._paths, *paths))

    def dragEnterEvent(self, event: Any) -> None:
        """Welcome files."""
        if local_paths(event):
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Add the dropped files."""
        event.acceptProposedAction()
        self.add(local_paths(event))

    def _ask_files(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(self, "Add images", "", FILE_FILTER)
        self.add([Path(name) for name in names])

    def _ask_folder(self) -> None:
        if name := QFileDialog.getExistingDirectory(self, "Add a folder of images"):
            self.add([Path(name)])


class ChoicesForm(QWidget):
    """Everything the user may choose before pressing Correct; writes to the session only."""

    def __init__(self, session: Session, methods: list[str]) -> None:
        super().__init__()
        self.session = session
        self.method_combo = narrow_combo("method_combo", "How the background is found")
        for name in methods:
            self.method_combo.addItem(name, name)
            self.method_combo.setItemData(
                self.method_combo.count() - 1,
                METHOD_HELP.get(name, name),
                Qt.ItemDataRole.ToolTipRole,
            )
        self.model_combo = narrow_combo("model_combo", "The trained network to use")
        self.model_combo.setMinimumContentsLength(7)
        self.browse_button = QPushButton("Browse…")
        self.browse_button.setObjectName("model_browse_button")
        self.browse_button.setToolTip("Use a model file (.safetensors)")
        self.device_combo = narrow_combo("device_combo", "Where the network runs")
        self.references = PathsField(
            "references_field",
            "images of the beam without the sample; they replace those inside the file",
            lambda paths: setattr(session, "references", paths),
        )
        self.darks: PathsField = PathsField(
            "darks_field",
            "images without beam",
            lambda paths: setattr(session, "darks", paths),
            ("Corner", "Take the counts of a corner that the aperture closes for the dark image",
             lambda: self.darks.set_paths((Path(APERTURE),))),
        )  # fmt: skip
        self.combine_combo = narrow_combo("combine_combo", "How several references become one")
        for name in COMBINE:
            self.combine_combo.addItem(name, name)
            self.combine_combo.setItemData(
                self.combine_combo.count() - 1, COMBINE_HELP[name], Qt.ItemDataRole.ToolTipRole
            )
        self.joint_box = QCheckBox("Refine over the whole scan")
        self.joint_box.setObjectName("joint_checkbox")
        self.joint_box.setToolTip(
            "Mosaics: place the tiles, then one background for all, from what overlaps show.\n"
            "Series: one pattern and a smooth drift. Steps aside where it cannot help."
        )
        self.again_box = QCheckBox("Correct again anyway")
        self.again_box.setObjectName("again_checkbox")
        self.again_box.setToolTip("Correct even a layer that is itself a result")
        self._lay_out()
        self._fill_first()
        self._connect()

    def show_choices(self, choices: Choices) -> None:
        """Offer the models and devices that were found; keep what is chosen."""
        _refill(self.model_combo, choices.models, self.session.model)
        devices = choices.devices
        best = next((d for d in devices if d[0] != "cpu"), devices[0] if devices else None)
        label = "Auto" if best is None else f"Auto ({best[1]})"
        _refill(self.device_combo, (("auto", label), *devices), self.session.device)

    def _lay_out(self) -> None:
        model = QHBoxLayout()
        model.setSpacing(3)
        model.addWidget(self.model_combo, 1)
        model.addWidget(self.browse_button)
        form = self._form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setSpacing(5)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        form.addRow("Method", self.method_combo)
        form.addRow("Model", model)
        form.addRow("References", self.references)
        form.addRow("Combine", self.combine_combo)
        form.addRow("Darks", self.darks)
        form.addRow("Device", self.device_combo)
        form.addRow("", self.joint_box)
        form.addRow("", self.again_box)

    def _fill_first(self) -> None:
        model = self.session.model
        _refill(self.model_combo, ((model, model),), model)
        device = self.session.device
        start = (("auto", "Auto"),) if device == "auto" else (("auto", "Auto"), (device, device))
        _refill(self.device_combo, start, device)
        at = self.method_combo.findData(self.session.method)
        self.method_combo.setCurrentIndex(max(at, 0))
        self._method_chosen()

    def _connect(self) -> None:
        self.method_combo.currentIndexChanged.connect(self._method_chosen)
        self.model_combo.currentIndexChanged.connect(
            lambda: setattr(self.session, "model", self.model_combo.currentData() or "default")
        )
        self.device_combo.currentIndexChanged.connect(
            lambda: setattr(self.session, "device", self.device_combo.currentData() or "auto")
        )
        self.combine_combo.currentIndexChanged.connect(
            lambda: setattr(self.session, "combine", self.combine_combo.currentData())
        )
        self.joint_box.toggled.connect(lambda on: setattr(self.session, "joint", bool(on)))
        self.again_box.toggled.connect(lambda on: setattr(self.session, "again", bool(on)))
        self.browse_button.clicked.connect(self._ask_model)
        self.session.events.model.connect(self._show_model)
        self.session.events.method.connect(self._show_method)

    def _show_model(self, model: str) -> None:
        """Follow a model that another panel has chosen."""
        if self.model_combo.findData(model) < 0:
            self.model_combo.addItem(model_label(model), model)
        self.model_combo.setCurrentIndex(self.model_combo.findData(model))
        self.model_combo.setToolTip(model)

    def _show_method(self, method: str) -> None:
        self.method_combo.setCurrentIndex(max(0, self.method_combo.findData(method)))

    def _method_chosen(self) -> None:
        method = self.method_combo.currentData() or "auto"
        self.session.method = method
        self.session.joint = method in JOINT_BY_DEFAULT
        self.joint_box.setChecked(self.session.joint)
        self.method_combo.setToolTip(METHOD_HELP.get(method, "How the background is found"))
        for widget in (self.model_combo, self.browse_button):
            widget.setEnabled(method in LEARNED)
        self._form.setRowVisible(self.combine_combo, method == "captured")

    def _ask_model(self) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self, "Use a model", "", "Models (*.safetensors);;All files (*)"
        )
        if name:
            self.session.model = name


def _refill(combo: QComboBox, entries: Any, chosen: str) -> None:
    combo.blockSignals(True)
    combo.clear()
    for name, label in entries:
        combo.addItem(label, name)
    if combo.findData(chosen) < 0:
        combo.addItem(model_label(chosen), chosen)
    combo.setCurrentIndex(combo.findData(chosen))
    combo.setToolTip(combo.currentText())
    combo.blockSignals(False)
