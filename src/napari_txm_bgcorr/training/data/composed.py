"""Pairs composed of real references and specimens, clean or simulated.

``raw = pedestal + beam x transmission + noise`` with a beam that is a reference less its
pedestal, drifted by up to a session's length. References are never turned: their shape is
the instrument's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_txm_bgcorr.models import FLOOR, Pairs, floored_log, free_truth, median, scale_free_rms
from napari_txm_bgcorr.simulation import expected_drift
from napari_txm_bgcorr.training.config import DataConfig

from .augment import drift_of, expose, log_uniform, low_passed, uniform, varied_specimens
from .session_pattern import SharedPattern
from .storage import Images

__all__ = ["CASES", "UNLIT_WEIGHT", "Composer", "Draw", "draw_cases", "told"]

CASES = ("none", "stale", "tile-median", "smooth")
UNLIT_WEIGHT = 0.05
ANOTHER = 0.5  # share of stale priors that are another reference of the same session
LAYERS = (5, 20)  # tiles whose median is a prior
FEW_COUNTS = 100.0  # images whose median is lower are taken for scaled ones
USUAL_COUNTS = 10_000.0


@dataclass(frozen=True)
class Draw:
    """The random numbers of one batch: discrete choices on the CPU, the rest on the device.

    Attributes
    ----------
    batch : int
        Number of the batch; -1: validation.
    rng : numpy.random.Generator
    random : torch.Generator
    """

    batch: int
    rng: np.random.Generator
    random: torch.Generator

    @classmethod
    def of(cls, key: tuple[int, ...], seed: int, batch: int, device: torch.device) -> Draw:
        """Numbers that are a pure function of seed, key and batch."""
        sequence = np.random.SeedSequence(seed, spawn_key=(*key, batch + 1))
        rng = np.random.default_rng(sequence)
        random = torch.Generator(device)
        random.manual_seed(int(rng.integers(2**62)))
        return cls(batch, rng, random)


def draw_cases(data: DataConfig, rng: np.random.Generator, count: int) -> list[str]:
    """Kind of prior of each of `count` tiles, by the shares in the settings."""
    share = np.array([data.p_no_prior, data.p_stale, data.p_tile_median, data.p_smooth])
    return [CASES[k] for k in rng.choice(len(CASES), count, p=share / share.sum())]


def told(pairs: Pairs, cases: list[str], sigma: float, rng: np.random.Generator) -> Pairs:
    """Pairs with the error of their priors told roughly, as `simulated` does; -1: none."""
    rms = scale_free_rms(pairs.log_prior - pairs.log_background, pairs.weight)
    factor = torch.from_numpy(rng.lognormal(0, sigma, len(cases)).astype(np.float32))
    absent = torch.tensor([case == "none" for case in cases], device=rms.device)
    return pairs._replace(rms=torch.where(absent, -torch.ones_like(rms), rms * factor.to(rms)))


@dataclass(frozen=True, eq=False)
class _Shot:
    """Tiles on their way: what their priors are made of.

    `log_beam` holds the mean pattern of the session and `hours` of drift since the reference
    `chosen`; `cleaner` is what averaging the pattern added.
    """

    chosen: NDArray[np.int64]
    log_beam: Tensor
    cleaner: Tensor
    hours: Tensor
    offset: Tensor
    pedestal: Tensor
    log_raw: Tensor


@dataclass(frozen=True, eq=False)
class Composer:
    """Make pairs of references and specimens.

    Attributes
    ----------
    references : Images
    usable : (M,) int64
        Numbers of the references that may be used.
    data : DataConfig
    pattern : SharedPattern or None
        Mean fine pattern of sessions, for raw tile and background; priors keep their noise.
    """

    references: Images
    usable: NDArray[np.int64]
    data: DataConfig
    pattern: SharedPattern | None = None

    def compose(self, transmission: Tensor, cases: list[str], draw: Draw) -> Pairs:
        """Pairs of random references under the specimens given.

        Parameters
        ----------
        transmission : (N, 1, F, F) float32
            Of specimens, on the device.
        cases : list of str
            Kind of prior of each, a name in `CASES`.
        draw : Draw
        """
        allowed = np.intersect1d(self.usable, self.references.window(draw.batch))
        allowed = allowed if len(allowed) else self.usable
        return self.exposures(draw.rng.choice(allowed, len(cases)), transmission, cases, draw)

    def exposures(
        self, chosen: NDArray[np.int64], transmission: Tensor, cases: list[str], draw: Draw
    ) -> Pairs:
        """Pairs of the references `chosen` under the specimens given; see `compose`."""
        augment, random = self.data.augment, draw.random
        specimens = varied_specimens(transmission, augment, random)
        taken = self.references.take(chosen, draw.batch)
        pedestal, kept = self._pedestal(chosen, taken.counts, draw)
        known = torch.from_numpy(~np.isnan(self.references.pedestal[chosen])).to(pedestal.device)
        beam = taken.counts - torch.where(known.view(-1, 1, 1, 1), 0.0, pedestal)
        log_beam = torch.log(torch.maximum(beam, (FLOOR * median(beam)).clamp_min(1e-3)))
        log_beam = log_beam + uniform(random, len(cases), -augment.gain, augment.gain)
        cleaner = torch.zeros_like(log_beam)
        if self.pattern is not None:
            cleaner = self.pattern.gain(chosen)
            log_beam = log_beam + cleaner
        hours = torch.zeros_like(pedestal)
        if augment.drift_h > 0:
            least = min(self.data.min_age_h, augment.drift_h / 2)
            hours = log_uniform(random, len(cases), least, augment.drift_h)
            log_beam = log_beam + drift_of(log_beam, hours.flatten(), random)
        beam, offset = log_beam.exp(), pedestal * kept
        unit = self._unit(beam)
        shrink = torch.from_numpy(self.references.shrink[chosen]).to(beam).view(-1, 1, 1, 1)
        raw = expose((beam * specimens + pedestal) * unit, shrink, augment, random) / unit
        log_raw = floored_log(raw - pedestal + offset)
        log_background = floored_log(beam + offset)
        weight = UNLIT_WEIGHT + (1 - UNLIT_WEIGHT) * taken.lit
        shot = _Shot(chosen, log_beam, cleaner, hours.flatten(), offset, pedestal, log_raw)
        prior, ages = self._priors(shot, cases, draw)
        free = free_truth(specimens)
        rms = weight.new_zeros(len(cases))
        pairs = Pairs(log_raw, log_background, prior, weight, rms, free)
        pairs = told(pairs, cases, self.data.staleness_sigma, draw.rng)
        return self._told_by_age(pairs, ages, draw)

    def _told_by_age(self, pairs: Pairs, ages: NDArray[np.float64], draw: Draw) -> Pairs:
        """Replace the error of some stale priors by that expected for their age, as in use."""
        by_age = ~np.isnan(ages) & (draw.rng.random(len(ages)) < self.data.p_told_by_age)
        guess = [
            expected_drift(age) if there else 0.0 for age, there in zip(ages, by_age, strict=True)
        ]
        rms = torch.tensor(guess, dtype=pairs.rms.dtype, device=pairs.rms.device)
        return pairs._replace(rms=torch.where(rms > 0, rms, pairs.rms))

    def _unit(self, beam: Tensor) -> Tensor:
        """Counts in one unit of the image: 1 for counts, more for images scaled to about 1."""
        level = median(beam)
        return torch.where(level < FEW_COUNTS, USUAL_COUNTS / level.clamp_min(1e-6), 1.0)

    def _pedestal(
        self, chosen: NDArray[np.int64], counts: Tensor, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """Counts without beam `(N, 1, 1, 1)`, and whether they stay in input and target.

        Where darks are known, theirs; else anything up to what the darkest part reads, and
        then it stays, as it does in files without darks.
        """
        darkest = counts[..., ::4, ::4].flatten(1).quantile(0.01, dim=1).view(-1, 1, 1, 1)
        guess = darkest * uniform(draw.random, len(chosen), 0.0, 0.95)
        known = self.references.pedestal[chosen]
        there = torch.from_numpy(~np.isnan(known)).to(counts.device).view(-1, 1, 1, 1)
        value = torch.from_numpy(np.nan_to_num(known)).to(counts).view(-1, 1, 1, 1)
        stays = torch.from_numpy(draw.rng.random(len(chosen)) < self.data.p_pedestal)
        stays = stays.to(counts.device).view(-1, 1, 1, 1) | ~there
        return torch.where(there, value, guess), stays.to(counts.dtype)

    def _priors(
        self, shot: _Shot, cases: list[str], draw: Draw
    ) -> tuple[Tensor, NDArray[np.float64]]:
        """Log prior of each tile, of no use where its case is ``none``; hours of stale ones."""
        log_beam, log_raw = shot.log_beam, shot.log_raw
        prior = floored_log(log_beam.exp() + shot.offset)
        ages = np.full(len(cases), np.nan)
        where = {case: [k for k, c in enumerate(cases) if c == case] for case in CASES}
        if rows := where["stale"]:
            prior[rows], ages[rows] = self._stale(shot, rows, draw)
        if rows := where["tile-median"]:
            prior[rows] = self._tile_median(rows, log_beam, shot.offset, log_raw, prior, draw)
        for k in where["smooth"]:
            sigma = log_raw.shape[-1] / 256 * np.exp(draw.rng.uniform(np.log(4), np.log(40)))
            prior[k : k + 1] = low_passed(prior[k : k + 1], sigma)
        return prior, ages

    def _stale(
        self, shot: _Shot, rows: list[int], draw: Draw
    ) -> tuple[Tensor, NDArray[np.float64]]:
        """Log priors of an earlier or later time, and their ages in hours (NaN: unknown)."""
        hours = log_uniform(draw.random, len(rows), self.data.min_age_h, self.data.max_age_h)
        noisy = shot.log_beam[rows] - shot.cleaner[rows]
        noisy = noisy + drift_of(shot.log_beam[rows], hours.flatten(), draw.random)
        old, ages = noisy.exp() + shot.offset[rows], hours.flatten().cpu().double().numpy()
        others = self._others(shot.chosen[rows], draw)
        if swap := [k for k, other in enumerate(others) if other >= 0]:
            chosen, place = np.array([others[k] for k in swap]), [rows[k] for k in swap]
            counts = self.references.take(chosen, draw.batch).counts
            unknown = np.isnan(self.references.pedestal[shot.chosen[place]])
            held = torch.from_numpy(unknown).to(counts).view(-1, 1, 1, 1) * shot.pedestal[place]
            old[swap] = counts - held + shot.offset[place]
            at = self.references.hours
            apart = np.abs(at[chosen] - at[shot.chosen[place]])
            ages[swap] = apart + shot.hours[place].cpu().double().numpy()
        return floored_log(old), ages

    def _others(self, chosen: NDArray[np.int64], draw: Draw) -> list[int]:
        """Choose another usable reference of the same session for half of the tiles, else -1."""
        sessions, found = self.references.sessions, []
        for k in chosen:
            same = self.usable[(sessions[self.usable] == sessions[k]) & (self.usable != k)]
            wanted = draw.rng.random() < ANOTHER
            found.append(int(draw.rng.choice(same)) if len(same) and wanted else -1)
        return found

    def _tile_median(
        self,
        rows: list[int],
        log_beam: Tensor,
        offset: Tensor,
        log_raw: Tensor,
        log_background: Tensor,
        draw: Draw,
    ) -> Tensor:
        """Median over tiles of the same session under other specimens of the batch.

        The specimens are rolled and mirrored to make more of them, and at times weak, as
        after a first pass of predictions.
        """
        rng, out = draw.rng, []
        specimens = log_raw - log_background
        for row in rows:
            count = int(rng.integers(*LAYERS))
            beams = log_beam[row : row + 1].expand(count, -1, -1, -1)
            minutes = log_uniform(draw.random, count, 1 / 60, 0.5).flatten()
            if self.data.augment.drift_h > 0:
                beams = beams + drift_of(beams, minutes, draw.random)
            layers = floored_log(beams.exp() + offset[row])
            strength = rng.choice([1.0, rng.uniform(0.1, 0.7)])
            for k in range(count):
                one = specimens[rng.integers(len(specimens)), 0]
                one = torch.roll(one, tuple(rng.integers(0, one.shape[0], 2).tolist()), (0, 1))
                one = torch.rot90(one, int(rng.integers(4)))
                layers[k, 0] += strength * (one.flip(0) if rng.random() < 0.5 else one)
            layers = layers - median(layers)
            out.append(layers.median(dim=0).values)
        return torch.stack(out)
