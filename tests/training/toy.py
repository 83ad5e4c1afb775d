"""A trivial source of pairs: tilted planes under blobs, drawn in microseconds."""

import numpy as np
import torch

from napari_txm_bgcorr.models.tensors import Pairs
from napari_txm_bgcorr.training.config import DataConfig, NetworkConfig, TrainConfig


class ToyPairs:
    def __init__(self, config: TrainConfig) -> None:
        self.seed, self.count, self.field_px = config.seed, config.batch, config.network.field_px

    def draw(self, index: int) -> Pairs:
        return self._pairs(np.random.SeedSequence(self.seed, spawn_key=(0, index)), self.count)

    def validation(self) -> dict[str, Pairs]:
        drawn = self._pairs(np.random.SeedSequence(5, spawn_key=(1, 0)), 8)
        stale = drawn._replace(rms=torch.full((8,), 0.02))
        return {"none": drawn._replace(rms=torch.full((8,), -1.0)), "stale": stale}

    def _pairs(self, sequence: np.random.SeedSequence, count: int) -> Pairs:
        rng = np.random.default_rng(sequence)
        size = self.field_px
        y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
        tilt = rng.normal(0, 0.3, (2, count, 1, 1))
        background = 9 + tilt[0] * y + tilt[1] * x
        centre = rng.uniform(-1, 1, (2, count, 1, 1))
        blob = -0.5 * np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 0.1)
        prior = background + rng.normal(0, 0.03, (count, 1, 1)) * y
        as_tensor = [
            torch.from_numpy(a[:, None].astype(np.float32))
            for a in (background + blob, background, prior)
        ]
        rms = torch.from_numpy(np.where(rng.random(count) < 0.5, -1, 0.02).astype(np.float32))
        free = torch.from_numpy((np.abs(blob) < 0.003)[:, None].astype(np.float32))
        return Pairs(*as_tensor, torch.ones_like(as_tensor[0]), rms, free)


def toy_config(**changes) -> TrainConfig:
    base = {
        "network": NetworkConfig(field_px=32, features=(8, 8, 16)),
        "data": DataConfig(kind="toy", workers=0, sessions_per_batch=1),
        "steps": 20,
        "batch": 4,
        "checkpoint_every": 5,
        "validate_every": 10,
        "log_every": 5,
        "ema": 0.9,
        "precision": "fp32",  # auto rounds more on some processors than the tests allow
    }
    return TrainConfig.model_validate(base | changes)
