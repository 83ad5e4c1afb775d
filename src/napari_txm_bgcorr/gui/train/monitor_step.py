"""Step 3 of the training panel: the buttons of a run, its curves and its figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QProgressBar, QSplitter, QVBoxLayout, QWidget

from napari_txm_bgcorr.gui.common.plots import Curves, Theme
from napari_txm_bgcorr.gui.common.widgets import BoundedLabel, button_row, named_button, time_left
from napari_txm_bgcorr.training.run import RunStatus

__all__ = ["RunStep", "figures", "loss_points", "quality_points"]

LOSSES = {
    "total": "generator",
    "discriminator": "discriminator",
    "l1": "L1",
    "fft": "FFT",
    "likelihood": "uncertainty",
    "free": "free pixels",
}
FFT = ("fft_l1", "fft_amplitude", "focal_frequency", "frc")
QUALITY = {"mean": "validation error, %"}


def loss_points(lines: Iterable[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """Points of the loss plot out of lines of ``metrics.jsonl``."""
    points = []
    for line in lines:
        step, losses = line.get("step"), line.get("losses")
        if not isinstance(step, int) or not isinstance(losses, Mapping):
            continue
        fft = next((losses[name] for name in FFT if name in losses), None)
        for key, value in {**losses, "fft": fft}.items():
            if isinstance(value, (int, float)):
                points.append((key, float(step), float(value)))
    return points


def quality_points(lines: Iterable[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """Points of the validation plot, per cent."""
    points = []
    for line in lines:
        step, checked = line.get("step"), line.get("validation")
        mean = checked.get("mean") if isinstance(checked, Mapping) else None
        if isinstance(step, int) and isinstance(mean, (int, float)):
            points.append(("mean", float(step), 100 * float(mean)))
    return points


def figures(status: RunStatus | None) -> str:
    """Speed, memory, power and energy of a run in one line; what is not known is said so."""
    if status is None:
        return ""
    memory, power = status.device_memory_gb, status.power_w
    total = status.device_memory_total_gb
    where = status.device_name or status.device or "device"
    of_all = f" of {total:.0f}" if total else ""
    words = [
        f"{status.samples_per_s:.3g} samples/s" if status.samples_per_s else "speed not known",
        f"memory {memory:.1f}{of_all} GB" if memory is not None else "memory not measured",
        f"power {power:.0f} W" if power is not None else "power not measured",
    ]
    if status.energy.get("joules") is not None:
        words.append(f"energy {status.energy['joules'] / 3.6e6:.3g} kWh")
    return f"{where}: " + ", ".join(words)


class RunStep(QWidget):
    """Start, Pause, Stop, Resume; progress, curves, figures; what to do with the result."""

    def __init__(self) -> None:
        super().__init__()
        self.start_button = named_button("start_button", "Start", "Start a new run")
        self.pause_button = named_button(
            "pause_button", "Pause", "Wait after the current step; Resume goes on"
        )
        self.stop_button = named_button(
            "stop_button", "Stop", "End after the current step; the run can be resumed"
        )
        self.resume_button = named_button(
            "resume_button", "Resume", "Go on with a paused, stopped or dead run"
        )
        self.progress_bar = QProgressBar()
        self.progress_bar.setObjectName("train_progress_bar")
        self.progress_bar.setTextVisible(True)
        self.status_label = BoundedLabel("status_label", 2, 4)
        self.status_label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.loss_curves = Curves(
            "loss_plot", LOSSES, log=True, tip="Losses over steps, logarithmic", steps=False
        )
        self.quality_curves = Curves(
            "quality_plot",
            QUALITY,
            log=False,
            tip="Error of the log background on the fixed validation set over steps, per cent; "
            "dashed: the weights it started from",
        )
        self.figures_label = BoundedLabel("figures_label", 2, 2)
        self.tile_box = QCheckBox("Show tile")
        self.tile_box.setObjectName("tile_checkbox")
        self.tile_box.setToolTip(
            "Draw a fixed validation tile as layers at each validation: raw and predicted above, "
            "true and difference below"
        )
        self.tile_box.setChecked(True)
        self.use_model_button = named_button(
            "use_model_button", "Use this model", "Give the best weights to Background correction"
        )
        self.attach_button = named_button(
            "attach_button", "Attach…", "Watch a run that is in a folder, live or ended"
        )
        self.models_button = named_button(
            "models_button", "Models…", "List, rename, import and export models"
        )
        self.copy_button = named_button(
            "copy_command_button", "Command", "Copy the command that does the same in a terminal"
        )
        self._lay_out()

    def _lay_out(self) -> None:
        buttons = button_row(
            self.start_button, self.pause_button, self.stop_button, self.resume_button
        )
        plots = QSplitter(Qt.Orientation.Vertical)
        plots.setChildrenCollapsible(False)
        plots.addWidget(self.loss_curves)
        plots.addWidget(self.quality_curves)
        plots.setSizes([100, 80])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addLayout(buttons)
        layout.addWidget(self.progress_bar)
        layout.addWidget(self.status_label)
        layout.addWidget(plots, 1)
        layout.addWidget(self.figures_label)
        layout.addLayout(button_row(self.use_model_button, self.tile_box))
        layout.addLayout(button_row(self.attach_button, self.models_button, self.copy_button))

    def set_theme(self, theme: Theme) -> None:
        """Take napari's colours."""
        self.loss_curves.set_theme(theme)
        self.quality_curves.set_theme(theme)

    def clear(self) -> None:
        """Forget the curves and figures of a run."""
        self.loss_curves.clear()
        self.quality_curves.clear()
        self.figures_label.setText("")
        self.show_progress(None)

    def show_lines(self, lines: Iterable[Mapping[str, Any]], status: RunStatus | None) -> None:
        """Append what a run has logged."""
        lines = tuple(lines)
        self.loss_curves.add(loss_points(lines))
        quality = quality_points(lines)
        self.quality_curves.add(quality)
        start = None if status is None else status.validation_start
        if start is not None:
            self.quality_curves.set_start(100 * start)
        elif quality and quality[0][1] == 0:
            self.quality_curves.set_start(quality[0][2])

    def show_progress(self, status: RunStatus | None, moving: bool = False) -> None:
        """Show how far the run is, and its figures."""
        self.progress_bar.setRange(0, 0 if moving else 1000)
        if status is None:
            self.progress_bar.setValue(0)
            self.progress_bar.setFormat("")
            return
        self.progress_bar.setValue(round(1000 * status.progress))
        left = status.left_s
        tail = f", {time_left(left)} left" if left is not None and status.progress < 1 else ""
        self.progress_bar.setFormat(f"step {status.step}, %p %{tail}")
        self.figures_label.setText(figures(status))

    def stop_drawing(self) -> None:
        """Draw no more."""
        self.loss_curves.stop()
        self.quality_curves.stop()
