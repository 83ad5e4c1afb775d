"""A run's folder under the tests' control, written as a training writes it."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil

from napari_txm_bgcorr.training.run.folder import RunFolder
from napari_txm_bgcorr.training.run.status import RunStatus

TINY = {
    "network.name": "subpixel-unet",
    "network.field_px": 32,
    "network.features": "[8,8,16]",
    "data.simulate_px": 32,
    "data.workers": 0,
    "data.pool_sessions": 0,
    "data.pool_specimens": 0,
    "data.sessions_per_batch": 1,
    "data.validation_sessions": 1,
    "steps": 3,
    "batch": 2,
    "log_every": 1,
    "validate_every": 1,
    "checkpoint_every": 1,
}
GONE_PID = 2**22 - 3


class FakeRun:
    """Writes status, lines, tiles and weights into a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.yaml").write_text("steps: 10\n")
        self.folder = RunFolder(path)
        self.me = psutil.Process()
        self.step = 0

    def says(self, state: str, **facts) -> None:
        facts = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "process_started": self.me.create_time(),
            "heartbeat": time.time(),
            "step": self.step,
        } | facts
        text = json.dumps(asdict(RunStatus(state, **facts)))
        part = self.path / ".status.part"
        part.write_text(text)
        part.replace(self.path / "status.json")

    def dies(self, **facts) -> None:
        self.says("running", pid=GONE_PID, **facts)

    def logs(self, count: int = 1, error: float | None = None) -> None:
        for _ in range(count):
            self.step += 1
            losses = {
                "total": 1 / self.step,
                "l1": 0.5 / self.step,
                "fft_l1": 0.1,
                "discriminator": 0.3,
            }
            checked = {} if error is None else {"mean": error, "none": error}
            self.folder.log({"step": self.step, "losses": losses, "validation": checked})

    def draws(self, size: int = 32, error: float = 0.0) -> None:
        y, x = np.mgrid[:size, :size] / np.float32(size)
        true = 0.2 * y.astype(np.float32)
        images = {"raw": true - 0.3 * (x > 0.5), "prior": true, "true": true}
        images["predicted"] = true + np.float32(error) * (y > 0.75)
        self.folder.save_preview(self.step, {k: v.astype(np.float32) for k, v in images.items()})

    def has_weights(self) -> None:
        (self.path / "model.safetensors").write_bytes(b"weights")
        (self.path / "model.json").write_text("{}")


def save_images(path: Path, count: int = 2, level: float = 5000, size: int = 32) -> Path:
    """A stack of flat, noisy images as .npy."""
    rng = np.random.default_rng(count)
    np.save(path, rng.poisson(level, (count, size, size)).astype(np.uint16))
    return path
