"""Step 2 of the training panel: preset, run folder, and the settings behind "Advanced"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QScrollArea,
    QSizePolicy,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_txm_bgcorr.gui.common.widgets import named_button
from napari_txm_bgcorr.gui.correct.form import narrow_combo

from .session import PRESETS, TrainSession

__all__ = ["TrainForm"]

Spin = TypeVar("Spin", bound=QAbstractSpinBox)
ADVANCED_HEIGHT = 80
PRESET_HELP = {
    "fine-tune": "Goes on from a trained model with your references: minutes",
    "from-nothing": "Starts from random weights: hours, for an instrument no model knows",
}
LOSSES = {
    "l1": "mean error of the log background",
    "level": "error of the tile's level",
    "fft_l1": "mean error of the Fourier coefficients",
    "fft_amplitude": "error of the Fourier amplitudes",
    "focal_frequency": "Fourier error, the worst frequencies first",
    "frc": "Fourier ring correlation",
    "likelihood": "errors against the uncertainty that the network states",
    "free": "cross entropy of the pixels free of sample",
    "adversarial": "the discriminator's verdict",
}


class TrainForm(QWidget):
    """Preset and settings; writes to the session only what differs from the preset."""

    def __init__(self, session: TrainSession) -> None:
        super().__init__()
        self.session = session
        self._presets: Mapping[str, Mapping[str, Any]] = {}
        self._filling = False
        self.preset_combo = narrow_combo("preset_combo", "What kind of training")
        for name, label in PRESETS.items():
            self.preset_combo.addItem(label, name)
            self.preset_combo.setItemData(
                self.preset_combo.count() - 1, PRESET_HELP[name], Qt.ItemDataRole.ToolTipRole
            )
        self.run_label = QLabel("a new folder")
        self.run_label.setObjectName("run_folder_label")
        self.run_label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.run_button = named_button(
            "run_folder_button", "Choose…", "Folder that takes the run: settings, curves, weights"
        )
        self.advanced_button = QToolButton()
        self.advanced_button.setObjectName("advanced_button")
        self.advanced_button.setText("Advanced")
        self.advanced_button.setToolTip("Minutes, device, batch, network, seed, loss weights")
        self.advanced_button.setCheckable(True)
        self.advanced_button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.advanced_button.setArrowType(Qt.ArrowType.RightArrow)
        self._make_advanced()
        self._lay_out()
        self._connect()

    def _make_advanced(self) -> None:
        self.minutes = _double("minutes_spin", "Time budget of the training, minutes", 0.01, 1e5)
        self.device_combo = narrow_combo("train_device_combo", "Where the training runs")
        self.device_combo.addItem("Auto", "auto")
        self.batch = _whole("batch_spin", "Tiles in one step", 1, 4096)
        self.network_combo = narrow_combo("network_combo", "Network to train")
        self.init_combo = narrow_combo(
            "init_combo", "Model whose weights the training starts from"
        )
        tip = "Seed of weights and batches: equal seeds, equal runs"
        self.seed = _whole("seed_spin", tip, 0, 2**31 - 1)
        self.weights = {
            name: _double(f"weight_{name}_spin", f"Weight of {name}: {tip}", 0, 1000, 4)
            for name, tip in LOSSES.items()
        }
        self.more = QLineEdit()
        self.more.setObjectName("more_settings_edit")
        self.more.setPlaceholderText("lr=1e-4 validate_every=50")
        self.more.setToolTip("Any other settings, key=value, separated by blanks")

    def _lay_out(self) -> None:
        inside = QWidget()
        form = QFormLayout(inside)
        form.setContentsMargins(4, 2, 4, 2)
        form.setSpacing(3)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        for label, field in (
            ("Minutes", self.minutes), ("Device", self.device_combo), ("Batch", self.batch),
            ("Starts from", self.init_combo), ("Network", self.network_combo), ("Seed", self.seed),
        ):  # fmt: skip
            form.addRow(label, field)
        grid = QGridLayout()
        grid.setSpacing(3)
        for place, (name, spin) in enumerate(self.weights.items()):
            words = QLabel(name)
            words.setToolTip(LOSSES[name])
            grid.addWidget(words, place, 0)
            grid.addWidget(spin, place, 1)
        form.addRow(QLabel("Loss weights"))
        form.addRow(grid)
        form.addRow("More", self.more)
        self.advanced = QScrollArea()
        self.advanced.setObjectName("advanced_area")
        self.advanced.setWidget(inside)
        self.advanced.setWidgetResizable(True)
        self.advanced.setFrameShape(QFrame.Shape.NoFrame)
        self.advanced.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.advanced.setFixedHeight(ADVANCED_HEIGHT)
        self.advanced.hide()
        row = QHBoxLayout()
        row.setSpacing(3)
        row.addWidget(self.advanced_button)
        row.addWidget(QLabel("Run in"))
        row.addWidget(self.run_label, 1)
        row.addWidget(self.run_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(self.preset_combo)
        layout.addLayout(row)
        layout.addWidget(self.advanced)

    def _connect(self) -> None:
        self.preset_combo.currentIndexChanged.connect(self._preset_chosen)
        self.run_button.clicked.connect(self._ask_run)
        self.device_combo.currentIndexChanged.connect(
            lambda: setattr(self.session, "device", self.device_combo.currentData() or "auto")
        )
        self.more.textChanged.connect(lambda text: setattr(self.session, "more", text))
        spins: list[QSpinBox | QDoubleSpinBox] = [self.minutes, self.batch, self.seed]
        for spin in (*spins, *self.weights.values()):
            spin.valueChanged.connect(self._changed)
        for combo in (self.network_combo, self.init_combo):
            combo.currentIndexChanged.connect(self._changed)
        self._preset_chosen()

    def offer(
        self,
        devices: Iterable[tuple[str, str]],
        models: Iterable[tuple[str, str]],
        networks: Iterable[str],
        presets: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Offer what was found on this machine; keep what is chosen."""
        self._filling = True
        for name, label in devices:
            if self.device_combo.findData(name) < 0:
                self.device_combo.addItem(label, name)
        for name, label in models:
            if self.init_combo.findData(name) < 0:
                self.init_combo.addItem(label, name)
        for name in networks:
            if self.network_combo.findData(name) < 0:
                self.network_combo.addItem(name, name)
        self._filling = False
        fresh = not self._presets
        self._presets = presets or self._presets
        if fresh:
            self._fill(keep=dict(self.session.changes))

    def set_run(self, run: Path | None) -> None:
        """Choose the folder of the next run; None: a new one."""
        self.session.run = run
        self.run_label.setText("a new folder" if run is None else run.name)
        self.run_label.setToolTip("" if run is None else str(run))

    def _preset_chosen(self) -> None:
        self.session.preset = self.preset_combo.currentData()
        self.preset_combo.setToolTip(PRESET_HELP[self.session.preset])
        self._fill({})

    def _fill(self, keep: Mapping[str, Any]) -> None:
        """Show the preset's values, and over them those to keep."""
        known = _flat(self._presets.get(self.session.preset, {}))
        if not known:
            return
        self._filling = True
        self.init_combo.setEnabled(known.get("init") is not None)
        self.network_combo.setEnabled(known.get("init") is None)
        for key, field in self._fields().items():
            value = keep.get(key, known.get(key))
            if isinstance(field, QComboBox):
                if value is not None and field.findData(value) < 0:
                    field.addItem(str(value), value)
                field.setCurrentIndex(field.findData(value))
            elif value is not None:
                field.setValue(type(field.value())(value))
        self._filling = False
        self._changed()

    def _fields(self) -> dict[str, Any]:
        return {
            "minutes": self.minutes,
            "batch": self.batch,
            "seed": self.seed,
            "network.name": self.network_combo,
            "init": self.init_combo,
            **{f"loss_weights.{name}": spin for name, spin in self.weights.items()},
        }

    def _changed(self) -> None:
        """Note what differs from the preset."""
        if self._filling:
            return
        known = _flat(self._presets.get(self.session.preset, {}))
        if not known:
            return
        changes = {}
        for key, field in self._fields().items():
            combo = isinstance(field, QComboBox)
            value = field.currentData() if combo else field.value()
            if field.isEnabled() and value is not None and value != known.get(key):
                changes[key] = value
        self.session.changes = changes

    def show_advanced(self, on: bool) -> None:
        """Unfold or fold the settings behind "Advanced"."""
        self.advanced.setVisible(on)
        self.advanced_button.setArrowType(
            Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow
        )

    def _ask_run(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "An empty folder for the run")
        self.set_run(Path(name) if name else None)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _double(name: str, tip: str, least: float, most: float, digits: int = 2) -> QDoubleSpinBox:
    spin = QDoubleSpinBox()
    spin.setDecimals(digits)
    spin.setRange(least, most)
    spin.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
    return _named(spin, name, tip)


def _whole(name: str, tip: str, least: int, most: int) -> QSpinBox:
    spin = QSpinBox()
    spin.setRange(least, most)
    return _named(spin, name, tip)


def _named(spin: Spin, name: str, tip: str) -> Spin:
    spin.setObjectName(name)
    spin.setToolTip(tip)
    spin.setKeyboardTracking(False)
    spin.setMinimumWidth(60)
    return spin
