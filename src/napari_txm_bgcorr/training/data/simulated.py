"""Pairs from simulated sessions, with every kind of prior a user may have.

A batch holds several sessions with several tiles each, since drawing a session (its fine
pattern and shape) costs more than exposing a tile in it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.models import Pairs, free_truth, log_field, scale_free_rms
from napari_txm_bgcorr.simulation import SimulatedSession, draw_session, draw_specimen
from napari_txm_bgcorr.training.config import DataConfig, TrainConfig

__all__ = ["CASES", "Pool", "SimulatedPairs", "varied"]

T = TypeVar("T")
Image = NDArray[np.float32]
CASES = ("none", "stale", "tile-median", "smooth")
UNLIT_WEIGHT = 0.05
REUSE = 4  # with pools, a session or specimen serves in about this many batches
VARIANTS = (5, 20)  # other tiles whose median is a prior


class SimulatedPairs:
    """Pairs drawn from the simulator (`simulation`); see `pairs.PairSource`.

    Parameters
    ----------
    config : TrainConfig
    """

    def __init__(self, config: TrainConfig) -> None:
        self.data = config.data
        self.field_px = config.network.field_px
        self.seed = config.seed
        self.per_session = config.batch // config.data.sessions_per_batch
        data = config.data
        self._sessions = Pool(
            partial(_new_session, data),
            (self.seed, 3),
            data.pool_sessions,
            max(1, data.sessions_per_batch // REUSE),
        )
        self._specimens = Pool(
            partial(_new_specimen, data),
            (self.seed, 4),
            data.pool_specimens,
            max(1, config.batch // REUSE),
        )

    def session(self, rng: np.random.Generator, batch: int | None) -> SimulatedSession:
        """A session for batch number `batch`; None (validation): one of its own."""
        if batch is None or not self._sessions.size:
            return _new_session(self.data, rng)
        return self._sessions.draw(rng, batch)

    def specimen(self, rng: np.random.Generator, batch: int | None) -> Image:
        """A transmission `(Y, X)`, as `session`; one from the pool is turned and thickened."""
        if batch is None or not self._specimens.size:
            return _new_specimen(self.data, rng)
        return varied(self._specimens.draw(rng, batch), rng)

    def plain_specimen(self, rng: np.random.Generator, batch: int) -> Image:
        """A transmission `(Y, X)` as it was drawn, to be varied elsewhere."""
        if not self._specimens.size:
            return _new_specimen(self.data, rng)
        return self._specimens.draw(rng, batch)

    def draw(self, index: int, count: int | None = None) -> Pairs:
        """Batch `index` of the training stream.

        Parameters
        ----------
        index : int
        count : int or None
            Tiles in it, spread over as few sessions as the settings allow; None: a whole
            batch.
        """
        sequence = np.random.SeedSequence(self.seed, spawn_key=(0, index))
        share = np.array(
            [self.data.p_no_prior, self.data.p_stale, self.data.p_tile_median, self.data.p_smooth]
        )
        rng = np.random.default_rng(sequence)
        tiles: list[_Tile] = []
        left = self.per_session * self.data.sessions_per_batch if count is None else count
        while left > 0:
            some = min(self.per_session, left)
            shot = _Shots(self, rng, some, index)
            cases = rng.choice(len(CASES), some, p=share / share.sum())
            tiles += [shot.tile(k, CASES[case]) for k, case in enumerate(cases)]
            left -= some
        return _stack(tiles, self.data.staleness_sigma, rng)

    def validation(self) -> dict[str, Pairs]:
        """Every fixed tile in the three main cases."""
        found: dict[str, list[_Tile]] = {case: [] for case in CASES[:3]}
        for session in range(self.data.validation_sessions):
            key = np.random.SeedSequence(self.data.validation_seed, spawn_key=(1, session))
            shot = _Shots(self, np.random.default_rng(key), 4, None)
            for case, tiles in found.items():
                tiles += [shot.tile(k, case) for k in range(4)]
        rng = np.random.default_rng(self.data.validation_seed)
        return {
            case: _stack(tiles, self.data.staleness_sigma, rng) for case, tiles in found.items()
        }


class Pool(Generic[T]):
    """Pool of objects that are costly to make, each used several times before it is replaced.

    Thing number `j` is a pure function of the seed and `j`; batch `i` may use the `size`
    numbers from ``i * fresh`` on. So a run that is resumed draws what it would have drawn.

    Parameters
    ----------
    make : callable
        Makes a thing with a random generator; can be pickled, for the worker processes.
    key : tuple of int
        Seed and kind.
    size : int
        How many are at hand; 0: no pool.
    fresh : int
        How many new ones come with each batch.
    """

    def __init__(
        self,
        make: Callable[[np.random.Generator], T],
        key: tuple[int, int],
        size: int,
        fresh: int,
    ) -> None:
        self.make, self.key, self.size, self.fresh = make, key, size, fresh
        self._made: dict[int, T] = {}

    def draw(self, rng: np.random.Generator, batch: int) -> T:
        """One of the things that batch number `batch` may use."""
        first = batch * self.fresh
        for old in [j for j in self._made if j < first]:
            del self._made[old]
        number = first + int(rng.integers(self.size))
        if number not in self._made:
            seed, kind = self.key
            sequence = np.random.SeedSequence(seed, spawn_key=(kind, number))
            self._made[number] = self.make(np.random.default_rng(sequence))
        return self._made[number]


def varied(transmission: Image, rng: np.random.Generator) -> Image:
    """Turn, mirror and thicken a specimen: ``t ** k`` is the same one ``k`` times as thick.

    Parameters
    ----------
    transmission : (N, N) float32
    rng : numpy.random.Generator

    Returns
    -------
    (N, N) float32
        In (0, 1.6].
    """
    turned = np.rot90(transmission, int(rng.integers(4)))
    turned = turned[::-1] if rng.random() < 0.5 else turned
    thickness = np.float32(np.exp(rng.uniform(np.log(0.5), np.log(1.6))))
    return np.asarray(np.clip(turned**thickness, 1e-3, 1.6), np.float32)


def _new_session(data: DataConfig, rng: np.random.Generator) -> SimulatedSession:
    family = str(rng.choice(data.families)) if data.families else None
    return draw_session(rng, size=data.simulate_px, family=family)


def _new_specimen(data: DataConfig, rng: np.random.Generator) -> Image:
    image: Image = draw_specimen(rng, (data.simulate_px, data.simulate_px))
    return image


class _Tile:
    """Log raw, log background, log prior `(F, F)`, lit and free field, and the prior's kind."""

    def __init__(
        self, raw: Image, background: Image, prior: Image, lit: Any, free: Image, case: str
    ) -> None:
        self.raw, self.background, self.prior, self.lit = raw, background, prior, lit
        self.free, self.case = free, case


class _Shots:
    """Some tiles of one session: exposures, true backgrounds, and priors for them."""

    def __init__(
        self,
        source: SimulatedPairs,
        rng: np.random.Generator,
        count: int,
        batch: int | None = None,
    ) -> None:
        data = source.data
        self.rng, self.field_px, self.max_age_h = rng, source.field_px, data.max_age_h
        self.session = source.session(rng, batch)
        self.pedestal = rng.random() < data.p_pedestal
        low, high = np.log(data.drift)
        self.drift = float(np.exp(rng.uniform(low, high)))
        start, gap_h = rng.uniform(0, 12), np.exp(rng.uniform(np.log(0.01), np.log(0.3)))
        self.times = start + gap_h * np.arange(count)
        raws, beams, specimens = [], [], []
        for time in self.times:
            transmission = source.specimen(rng, batch)
            raws.append(self.session.expose(transmission, time, rng, drift=self.drift))
            beams.append(self.session.background(time, drift=self.drift))
            specimens.append(transmission)
        self.raw = self._log(np.stack(raws) - self._offset(raw=True))
        self.background = self._log(np.stack(beams) + self._offset(raw=False))
        fields = torch.from_numpy(_field(np.stack(specimens), self.field_px))
        self.free: Image = free_truth(fields).numpy()
        lit = np.asarray(self.session.aperture, np.float32)[None]
        self.lit = _field(lit, self.field_px)[0] > 0.99

    def tile(self, k: int, case: str) -> _Tile:
        """Tile `k` with a prior of the named kind."""
        draw: dict[str, Callable[[], Image]] = {
            "none": lambda: self.background[k],
            "stale": lambda: self._stale(self.times[k]),
            "tile-median": lambda: self._tile_median(k),
            "smooth": lambda: self._smooth(k),
        }
        prior = draw[case]()
        return _Tile(self.raw[k], self.background[k], prior, self.lit, self.free[k], case)

    def _offset(self, *, raw: bool) -> Any:
        """Dark that is taken off the raw tile, or left in the truth: one or the other."""
        dark = np.asarray(self.session.dark, np.float32)
        return dark * (raw != self.pedestal)

    def _log(self, counts: NDArray[Any]) -> Image:
        fields = torch.from_numpy(np.asarray(counts, np.float32))[:, None]
        out: Image = log_field(fields, self.field_px)[:, 0].numpy()
        return out

    def _stale(self, time: float) -> Image:
        """Reference taken earlier (or, at times, later), averaged over some frames."""
        rng = self.rng
        age = float(np.exp(rng.uniform(np.log(1 / 60), np.log(self.max_age_h))))
        when = time - age if rng.random() < 0.8 else time + age
        counts = self.session.background(when, drift=self.drift)
        frames = rng.integers(1, 11)
        noise = rng.standard_normal(counts.shape, np.float32)
        noisy = counts + noise * np.sqrt(np.maximum(counts, 1) * 2 / frames)
        prior: Image = self._log((noisy + self._offset(raw=False))[None])[0]
        return prior

    def _tile_median(self, k: int) -> Image:
        """Median of other tiles' logs: their specimens turned and rolled make more of them.

        The specimen's part is scaled down at times, as after a first pass of predictions.
        """
        rng, others = self.rng, [j for j in range(len(self.raw)) if j != k] or [k]
        strength = rng.choice([1.0, rng.uniform(0.1, 0.7)])
        layers = []
        for _ in range(rng.integers(*VARIANTS)):
            j, other = rng.choice(others, 2)
            specimen = self.raw[j] - self.background[j]
            specimen = np.roll(specimen, rng.integers(0, self.field_px, 2), (0, 1))
            specimen = np.rot90(specimen, int(rng.integers(4)))
            specimen = specimen if rng.random() < 0.5 else specimen[::-1]
            layer = self.background[other] + strength * specimen
            layers.append(torch.from_numpy(layer - np.median(layer[::4, ::4])))
        return np.asarray(torch.stack(layers).median(dim=0).values.numpy(), np.float32)

    def _smooth(self, k: int) -> Image:
        """Only the smooth part of the true shape, as a fit without references would give."""
        sigma = self.field_px / 256 * np.exp(self.rng.uniform(np.log(4), np.log(40)))
        prior: Image = ndimage.gaussian_filter(self.background[k], sigma, mode="nearest")
        return prior


def _field(images: Image, field_px: int) -> Image:
    """Area average to the field."""
    stack = torch.from_numpy(images)[:, None]
    out: Image = torch.nn.functional.interpolate(stack, (field_px, field_px), mode="area")[
        :, 0
    ].numpy()
    return out


def _stack(tiles: list[_Tile], sigma: float, rng: np.random.Generator) -> Pairs:
    def joined(name: str) -> torch.Tensor:
        return torch.from_numpy(
            np.ascontiguousarray(np.stack([getattr(t, name) for t in tiles])[:, None], np.float32)
        )

    background, prior, lit = joined("background"), joined("prior"), joined("lit")
    weight = UNLIT_WEIGHT + (1 - UNLIT_WEIGHT) * lit
    told = scale_free_rms(prior - background, weight)
    told = told * torch.from_numpy(rng.lognormal(0, sigma, len(tiles)).astype(np.float32))
    absent = torch.tensor([tile.case == "none" for tile in tiles])
    rms = torch.where(absent, -torch.ones(()), told)
    return Pairs(joined("raw"), background, prior, weight, rms, joined("free"))
