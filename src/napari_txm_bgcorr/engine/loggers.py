"""Other places that take a run's curves: TensorBoard and MLflow, loaded only when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core.errors import ConfigError
from napari_txm_bgcorr.engine.config import TrainConfig

__all__ = ["LOGGERS", "Logger", "build_loggers"]


class Logger(Protocol):
    """A place that takes curves and pictures."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take values by name (``loss/l1``, ``validation/none``, ``lr``) at a step."""

    def picture(self, step: int, images: Mapping[str, NDArray[np.float32]]) -> None:
        """Take pictures `(Y, X)` by name at a step."""

    def close(self, state: str) -> None:
        """Write what is held back; the run ended in this state."""


class _TensorBoard:
    """Event files in the run's ``tensorboard`` folder."""

    def __init__(self, run: Path, config: TrainConfig, step: int) -> None:
        module = _load("torch.utils.tensorboard", "tensorboard", "monitor")
        # what an earlier process wrote beyond this step is hidden
        self._writer = module.SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, images: Mapping[str, NDArray[np.float32]]) -> None:
        for name, image in images.items():
            self._writer.add_image(f"preview/{name}", _grey(image), step, dataformats="HW")

    def close(self, state: str) -> None:
        self._writer.close()


class _MLflow:
    """A run of MLflow, named after the folder, at ``MLFLOW_TRACKING_URI``.

    Its number is kept in the folder, so that a resumed training goes on in the same run.
    """

    def __init__(self, run: Path, config: TrainConfig, step: int) -> None:
        self._mlflow = _load("mlflow", "mlflow", "mlflow")
        held = run / "mlflow-run.txt"
        known = held.read_text(encoding="utf-8").strip() if held.is_file() else None
        started = self._mlflow.start_run(run_id=known, run_name=None if known else run.name)
        if known is None:
            held.write_text(started.info.run_id, encoding="utf-8")
            self._mlflow.log_params(_flat(config.model_dump(mode="json")))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def picture(self, step: int, images: Mapping[str, NDArray[np.float32]]) -> None:
        for name, image in images.items():
            self._mlflow.log_image(_grey(image), f"previews/{step:08d}-{name}.png")

    def close(self, state: str) -> None:
        self._mlflow.end_run("FAILED" if state == "failed" else "FINISHED")


LOGGERS: dict[str, Callable[[Path, TrainConfig, int], Logger]] = {
    "tensorboard": _TensorBoard,
    "mlflow": _MLflow,
}


def build_loggers(run: Path, config: TrainConfig, step: int) -> list[Logger]:
    """Open the loggers that the settings name.

    Parameters
    ----------
    run : Path
        The run's folder.
    config : TrainConfig
    step : int
        Step that the training goes on from.

    Raises
    ------
    ConfigError
        If a package is missing.
    """
    return [LOGGERS[name](run, config, step) for name in config.loggers]


def _load(module: str, package: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"loggers: {package} is not installed; pip install 'napari-txm-bgcorr[{extra}]' or "
            "remove it from the settings"
        ) from error


def _grey(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Log counts between their 1st and 99th percentile as 0 to 255."""
    low, high = np.percentile(image, [1, 99])
    scaled = (image - low) / max(float(high - low), 1e-6)
    return np.asarray(np.clip(scaled, 0, 1) * 255, np.uint8)


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{before}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
