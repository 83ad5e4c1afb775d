"""A training run on disk: what the command writes and any window, anywhere, can read.

The files are described in ``docs/reference/run-folder.md``. Only `write_checkpoint` and
`read_checkpoint` need torch, and load it themselves.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import yaml
from numpy.typing import NDArray

from napari_txm_bgcorr.core import discard, remove_file, write_atomic
from napari_txm_bgcorr.errors import ConfigError, ModelError, WriteError
from napari_txm_bgcorr.training.config import TrainConfig, parse_config

from .status import RunStatus, read_status

__all__ = ["RunFolder", "read_checkpoint", "write_atomic", "write_checkpoint"]

MAGIC = b"TXMBGCK1"
KEEP_PREVIEWS = 20


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values as magic, SHA-256, then torch's format."""
    import torch

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
    import torch

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
    """One run's folder, for the process that trains and for those that watch.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.previews = self.path / "previews"
        self.metrics = self.path / "metrics.jsonl"
        self.model = self.path / "model.safetensors"

    # -- the process that trains ------------------------------------------------------------

    def start(self, config: TrainConfig, *, resume: bool) -> None:
        """Make the folder, or check that the run in it can go on.

        Raises
        ------
        ConfigError
            If a run is there and `resume` is not asked for, if it is still going on, or if its
            settings differ in what a resumed run cannot change.
        """
        place = self.path / "config.yaml"
        if place.exists() and not resume:
            raise ConfigError(f"{self.path}: holds a run already; pass --resume or another --run")
        status = self.status()
        if status is not None and status.alive():
            raise ConfigError(
                f"{self.path}: its run is going on (process {status.pid} on {status.host}); "
                "stop it first"
            )
        if place.exists():
            _refuse_changes(self.config(), config, place)
        for name in ("stop", "pause"):
            remove_file(self.path / name)
        for part in self.path.rglob(".*.part"):  # of a process killed while it wrote
            discard(part)
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        write_atomic(place, text.encode())

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``; numbers that JSON has not become null."""
        self._append(self.metrics, json.dumps(_plain(dict(line)), allow_nan=False))

    def note(self, sentence: str) -> None:
        """Append a sentence with the time to ``log.txt``."""
        now = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
        self._append(self.path / "log.txt", f"{now}  {sentence}")

    def _append(self, path: Path, line: str) -> None:
        try:
            with path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError as error:
            raise WriteError(f"{path}: cannot be written ({error}); free some space") from error

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

    def save(self, step: int, state: Mapping[str, Any], keep: int) -> None:
        """Write the checkpoint of `step`, then remove all but the newest `keep`.

        On a full disk all old checkpoints but the newest are removed before a second try.
        """
        place = self.checkpoints / f"step_{step:08d}.ckpt"
        try:
            write_checkpoint(place, state)
        except WriteError:
            old = self._checkpoint_files()[:-1]
            if not old:
                raise
            for file in old:
                discard(file)
            write_checkpoint(place, state)
        for file in self._checkpoint_files()[:-keep]:
            discard(file)

    def drop_checkpoints_after(self, step: int) -> None:
        """Remove checkpoints beyond `step`: the run goes on from there, another way."""
        for file in self._checkpoint_files():
            if file.name > f"step_{step:08d}.ckpt":
                remove_file(file)

    def newest(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Newest checkpoint that is whole, and a sentence for each damaged one passed over."""
        passed: list[str] = []
        for path in reversed(self._checkpoint_files()):
            try:
                return read_checkpoint(path), passed
            except ModelError as error:
                passed.append(str(error))
        return None, passed

    def save_preview(self, step: int, images: Mapping[str, NDArray[np.float32]]) -> None:
        """Write a moment's arrays as ``previews/step_N.npz`` and ``previews/latest.npz``.

        Of the numbered ones the first and the newest `KEEP_PREVIEWS` stay.
        """
        buffer = io.BytesIO()
        np.savez_compressed(buffer, step=step, **dict(images))  # type: ignore[arg-type]
        for name in (f"step_{step:08d}", "latest"):
            write_atomic(self.previews / f"{name}.npz", buffer.getvalue(), durable=False)
        for old in sorted(self.previews.glob("step_*.npz"))[1:-KEEP_PREVIEWS]:
            discard(old)

    def wish(self) -> Literal["", "stop", "pause"]:
        """Request made to the run by a file of that name in the folder; empty: none."""
        if (self.path / "stop").exists():
            return "stop"
        return "pause" if (self.path / "pause").exists() else ""

    def pause_frees_device(self) -> bool:
        """Return True if the ``pause`` file holds ``cpu``: move the weights there meanwhile."""
        try:
            return "cpu" in (self.path / "pause").read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError):
            return False

    # -- those that watch -------------------------------------------------------------------

    def config(self) -> TrainConfig:
        """Settings the run was started with."""
        place = self.path / "config.yaml"
        try:
            values = yaml.safe_load(place.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{place}: cannot be read; is this a run's folder?") from error
        return parse_config(values if isinstance(values, dict) else {}, str(place))

    def status(self) -> RunStatus | None:
        """Status that the run has written; None before the first."""
        return read_status(self.path)

    def ask(self, wish: Literal["stop", "pause"], *, free_device: bool = False) -> None:
        """Ask the run to stop after the current step, or to wait.

        Parameters
        ----------
        wish : {"stop", "pause"}
        free_device : bool
            While it waits, move its weights off the device.
        """
        write_atomic(self.path / wish, b"cpu\n" if free_device else b"")

    def withdraw(self, wish: Literal["stop", "pause"]) -> None:
        """Withdraw a request; a paused run goes on."""
        remove_file(self.path / wish)

    def read_metrics(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Whole lines of ``metrics.jsonl`` from a byte on, and the byte to go on from.

        A file shorter than `offset` was cut by a resumed run: it is read from its start, and
        what was read before no longer counts.
        """
        try:
            with self.metrics.open("rb") as stream:
                size = stream.seek(0, io.SEEK_END)
                offset = offset if offset <= size else 0
                stream.seek(offset)
                data = stream.read()
        except FileNotFoundError:
            return [], 0
        except OSError:  # open elsewhere for a moment, or a share that is away
            return [], offset
        whole, found, _ = data.rpartition(b"\n")
        lines = []
        for text in whole.splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                continue  # a line cut short by a killed process
        return lines, offset + len(whole) + len(found)

    def read_preview(self, name: str = "latest") -> dict[str, NDArray[Any]]:
        """Arrays of one moment by name, ``step`` among them; empty if there are none yet."""
        try:
            with (
                (self.previews / f"{name}.npz").open("rb") as file,
                np.load(file, allow_pickle=False) as held,
            ):
                return {key: held[key] for key in held.files}
        except (OSError, ValueError, EOFError, BadZipFile):
            return {}

    def _checkpoint_files(self) -> list[Path]:
        return sorted(self.checkpoints.glob("step_*.ckpt"))


def _plain(value: Any) -> Any:
    """NaN and infinities, which JSON has not, as None."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


FREE_TO_CHANGE = {
    "steps", "minutes", "checkpoint_every", "validate_every", "log_every", "keep_checkpoints",
    "schedule", "lr", "init", "patience", "loggers", "energy", "watchdog", "micro_batch",
}  # fmt: skip


def _refuse_changes(old: TrainConfig, new: TrainConfig, place: Path) -> None:
    before, after = old.model_dump(exclude=FREE_TO_CHANGE), new.model_dump(exclude=FREE_TO_CHANGE)
    before["data"].pop("workers"), after["data"].pop("workers")
    for key, value in before.items():
        if after[key] != value:
            raise ConfigError(
                f"{place}: {key} was {value} and cannot become {after[key]} in a resumed run; "
                "start a new run with init set to this one"
            )
