"""Loggers for a run's curves: TensorBoard and MLflow, loaded only when asked for."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.training.config import TrainConfig

__all__ = ["LOGGERS", "Logger", "build_loggers"]

# A server that is away is given up after two tries of 20 s; MLflow itself tries for minutes
BOUNDS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
PARAMS_AT_ONCE = 100  # MLflow refuses more in one request
KEPT = ("model.safetensors", "model.json", "config.yaml")
END = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class Logger(Protocol):
    """A place that takes curves and pictures."""

    def open(self) -> None:
        """Get ready; called once, before all others."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take values by name (``loss/l1``, ``validation/none``, ``lr``) at a step."""

    def picture(self, step: int, images: Mapping[str, NDArray[np.float32]]) -> None:
        """Take pictures `(Y, X)` by name at a step."""

    def close(self, state: str) -> None:
        """Write what is held back; the run ended in this state."""


class _TensorBoard:
    """Event files in the run's ``tensorboard`` folder."""

    def __init__(self, run: Path, config: TrainConfig, step: int) -> None:
        self._module = _load("torch.utils.tensorboard", "tensorboard", "monitor")
        self._place, self._step = str(run / "tensorboard"), step
        self._writer: Any = None

    def open(self) -> None:
        # what an earlier process wrote beyond this step is hidden
        self._writer = self._module.SummaryWriter(self._place, purge_step=self._step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, images: Mapping[str, NDArray[np.float32]]) -> None:
        for name, image in images.items():
            self._writer.add_image(f"preview/{name}", _grey(image), step, dataformats="HW")

    def close(self, state: str) -> None:
        if self._writer is not None:
            self._writer.close()


class _MLflow:
    """A run of MLflow, named after the folder, at ``MLFLOW_TRACKING_URI``.

    Its number is kept in the folder, so that a resumed training goes on in the same run. What
    ``MLFLOW_HTTP_REQUEST_*`` leave open is bounded by `BOUNDS`.
    """

    def __init__(self, run: Path, config: TrainConfig, step: int) -> None:
        self._mlflow = _load("mlflow", "mlflow", "mlflow")
        self._folder, self._config, self._number = run, config, ""

    def open(self) -> None:
        for name, value in BOUNDS.items():
            os.environ.setdefault(name, value)
        held = self._folder / "mlflow-run.txt"
        known = held.read_text(encoding="utf-8").strip() if held.is_file() else None
        run_name = None if known else self._folder.name
        self._number = self._mlflow.start_run(run_id=known, run_name=run_name).info.run_id
        if known is None:
            held.write_text(self._number, encoding="utf-8")
            for part in _parts(_flat(self._config.model_dump(mode="json")), PARAMS_AT_ONCE):
                self._mlflow.log_params(part)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def picture(self, step: int, images: Mapping[str, NDArray[np.float32]]) -> None:
        for name, image in images.items():
            self._mlflow.log_image(_grey(image), f"previews/{step:08d}-{name}.png")

    def close(self, state: str) -> None:
        if not self._number:
            return
        # the state first: it needs the least time, and a scheduler may not leave much
        self._mlflow.end_run(END[state])
        for name in KEPT:
            if (self._folder / name).is_file():
                self._mlflow.log_artifact(str(self._folder / name), run_id=self._number)


class _Guarded:
    """A logger that can fail without ending the training.

    After its first failure one warning is given and it is told nothing more but the end, which
    reaches a server that is back by then.
    """

    def __init__(self, name: str, logger: Logger, warn: Callable[[str], None]) -> None:
        self._name, self._logger, self._warn = name, logger, warn
        self._lost = False

    def open(self) -> None:
        self._try(self._logger.open)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if not self._lost:
            self._try(partial(self._logger.log, step, values))

    def picture(self, step: int, images: Mapping[str, NDArray[np.float32]]) -> None:
        if not self._lost:
            self._try(partial(self._logger.picture, step, images))

    def close(self, state: str) -> None:
        self._try(partial(self._logger.close, state))

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever other packages raise
            if not self._lost:
                self._lost = True
                self._warn(
                    f"{self._name}: {_sentence(error)}; the training goes on without it, its "
                    "curves are in metrics.jsonl"
                )


LOGGERS: dict[str, Callable[[Path, TrainConfig, int], Logger]] = {
    "tensorboard": _TensorBoard,
    "mlflow": _MLflow,
}


def build_loggers(
    run: Path, config: TrainConfig, step: int, warn: Callable[[str], None]
) -> list[Logger]:
    """Open the loggers that the settings name; one that fails later does not raise.

    Parameters
    ----------
    run : Path
        The run's folder.
    config : TrainConfig
    step : int
        Step that the training goes on from.
    warn : callable
        Takes a sentence, once for each logger that fails.

    Raises
    ------
    ConfigError
        If a package is missing.
    """
    made: list[Logger] = [
        _Guarded(name, LOGGERS[name](run, config, step), warn) for name in config.loggers
    ]
    for logger in made:
        logger.open()
    return made


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


def _parts(values: Mapping[str, Any], size: int) -> Iterator[dict[str, Any]]:
    rest: Iterable[tuple[str, Any]] = iter(values.items())
    while part := dict(islice(rest, size)):
        yield part


def _sentence(error: Exception) -> str:
    """Text of an error on one line of bounded length, without the password in an address."""
    text = " ".join((str(error) or type(error).__name__).split())
    text = re.sub(r"://[^/@\s]+@", "://***@", text)
    return text if len(text) <= 300 else f"{text[:297]}..."
