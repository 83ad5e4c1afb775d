"""A training run on disk: what the command writes and any window, anywhere, can read.

``config.yaml``, ``metrics.jsonl``, ``previews/``, ``checkpoints/``, ``status.json``, and
``stop``, whose appearance asks the run to end. The exported model is ``model.safetensors``
with its card ``model.json``.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from napari_txm_bgcorr.core.errors import ConfigError, ModelError, WriteError
from napari_txm_bgcorr.engine.config import TrainConfig, parse_config

__all__ = ["RunFolder", "read_checkpoint", "write_atomic", "write_checkpoint"]

MAGIC = b"TXMBGCK1"


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside the place, then rename into it: readers see the old file or the new one.

    Raises
    ------
    WriteError
        If the disk is full or the folder not writable.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise WriteError(f"{path}: cannot be written ({error}); free or choose a place") from error


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values as magic, SHA-256, then torch's format."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    body = buffer.getvalue()
    write_atomic(path, MAGIC + hashlib.sha256(body).digest() + body)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote; nothing in the file can run code.

    Raises
    ------
    ModelError
        If the file is cut short, altered or something else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error})") from error
    head, body = data[:40], data[40:]
    if len(head) < 40 or head[:8] != MAGIC:
        raise ModelError(f"{path}: is no checkpoint of this program")
    if hashlib.sha256(body).digest() != head[8:]:
        raise ModelError(f"{path}: is damaged (its hash differs); resume from an earlier one")
    try:
        state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ModelError(f"{path}: cannot be unpacked; resume from an earlier one") from error
    return dict(state)


class RunFolder:
    """One run's folder.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.model = self.path / "model.safetensors"

    def start(self, config: TrainConfig, *, resume: bool) -> None:
        """Make the folder, or check that the run in it can go on.

        Raises
        ------
        ConfigError
            If a run is there and `resume` is not asked for, or its settings differ in what
            a resumed run cannot change.
        """
        place = self.path / "config.yaml"
        if place.exists() and not resume:
            raise ConfigError(f"{self.path}: holds a run already; pass --resume or another --run")
        if place.exists():
            _refuse_changes(self.config(), config, place)
        (self.path / "stop").unlink(missing_ok=True)
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        write_atomic(place, text.encode())

    def config(self) -> TrainConfig:
        """Settings the run was started with."""
        place = self.path / "config.yaml"
        try:
            values = yaml.safe_load(place.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{place}: cannot be read; is this a run's folder?") from error
        return parse_config(values if isinstance(values, dict) else {}, str(place))

    def stop_asked(self) -> bool:
        """Whether somebody put a file named ``stop`` into the folder."""
        return (self.path / "stop").exists()

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        with self.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(dict(line)) + "\n")

    def drop_metrics_after(self, step: int) -> None:
        """Forget what was logged beyond the step that a resumed run starts from."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue  # a line cut short by a killed process
        write_atomic(self.metrics, "".join(line + "\n" for line in kept).encode())

    def status(self, state: str, **facts: Any) -> None:
        """Replace ``status.json``: state (running, stopped, finished, failed) and facts."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"state": state, "pid": os.getpid(), "time": now, **facts}
        write_atomic(self.path / "status.json", json.dumps(line, indent=1).encode())

    def save(self, step: int, state: Mapping[str, Any], keep: int) -> None:
        """Write the checkpoint of `step`, then remove all but the newest `keep`."""
        write_checkpoint(self.checkpoints / f"step_{step:08d}.ckpt", state)
        for old in self._checkpoint_files()[:-keep]:
            old.unlink(missing_ok=True)

    def newest(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Newest checkpoint that is whole, and a sentence for each damaged one passed over."""
        passed: list[str] = []
        for path in reversed(self._checkpoint_files()):
            try:
                return read_checkpoint(path), passed
            except ModelError as error:
                passed.append(str(error))
        return None, passed

    def preview(self, name: str, images: Mapping[str, NDArray[np.float32]]) -> None:
        """Write arrays of one moment as ``previews/NAME.npz``, replaced atomically."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **dict(images))  # type: ignore[arg-type]
        write_atomic(self.path / "previews" / f"{name}.npz", buffer.getvalue())

    def _checkpoint_files(self) -> list[Path]:
        return sorted(self.checkpoints.glob("step_*.ckpt"))


FREE_TO_CHANGE = {"steps", "minutes", "checkpoint_every", "validate_every", "log_every"} | {
    "keep_checkpoints",
    "schedule",
    "lr",
    "init",
}


def _refuse_changes(old: TrainConfig, new: TrainConfig, place: Path) -> None:
    before, after = old.model_dump(exclude=FREE_TO_CHANGE), new.model_dump(exclude=FREE_TO_CHANGE)
    before["data"].pop("workers"), after["data"].pop("workers")
    for key, value in before.items():
        if after[key] != value:
            raise ConfigError(
                f"{place}: {key} was {value} and cannot become {after[key]} in a resumed run; "
                "start a new run with init set to this one"
            )
