"""How far references are off, and what tells it: the figures behind `engine.prior_error`.

Draws simulated sessions, asks the model how much it would change references of several ages,
and prints one JSON object a line:

- ``age``: for each age the mean error of the reference (``error``), mean and sd of the
  logarithm of the error over what the age suggests, and the model's error in per cent with
  that suggestion told (``by_age``), with the estimate from one tile (``alone``) and from all
  tiles of the session (``together``), and with the truth (``known``);
- ``fit``: `GAIN`, `FLOOR` and the scatter of the change that fit these sessions best.

    python benchmarks/expected_error.py --sessions 40          # about 3 CPU minutes
    python benchmarks/expected_error.py --sessions 40 --group held-out --seed 8
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize

from napari_txm_bgcorr.core.simulate import FAMILIES, draw_session, draw_specimen
from napari_txm_bgcorr.engine.checkpoint import load_model, resolve_model
from napari_txm_bgcorr.engine.prior_error import ASKED, drift_factor, rms_change
from napari_txm_bgcorr.engine.priors import expected_drift
from napari_txm_bgcorr.engine.tensors import log_field, network_input, scale_free_rms

SIZE = 256
AGES_H = (1 / 6, 1.0, 3.0, 8.0, 24.0, 1440.0)
KEY = 0x455252  # of the sessions drawn here


@dataclass(frozen=True)
class Found:
    """One reference and one tile of a session."""

    session: int
    age_h: float
    error: float
    change: float
    after: dict[str, float]


def look(network: torch.nn.Module, session: int, options: argparse.Namespace) -> list[Found]:
    """References of all ages of one session, each with several tiles."""
    held_out = options.group == "held-out"
    sequence = np.random.SeedSequence(options.seed, spawn_key=(KEY, held_out, session))
    rng = np.random.default_rng(sequence)
    names = [name for name, family in FAMILIES.items() if family.held_out]
    drawn = draw_session(rng, size=SIZE, family=names[session % len(names)] if held_out else None)
    dark = drawn.dark if session % 2 == 0 else np.float32(0)
    hours = np.arange(options.tiles) / 55
    specimens = [draw_specimen(rng, (SIZE, SIZE)) for _ in hours]
    raw = _logs([drawn.expose(s, h, rng) - dark for s, h in zip(specimens, hours, strict=True)])
    true = _logs([drawn.background(h) + drawn.dark - dark for h in hours])
    clear = np.ones((SIZE, SIZE), np.float32)
    weight = torch.from_numpy(drawn.aperture.astype(np.float32))[None, None]
    found = []
    for age in AGES_H:
        prior = _logs([drawn.expose(clear, -age, rng) - dark])
        error = [float(scale_free_rms(prior - t[None], weight)) for t in true]
        changes = [_correct(network, r[None], prior, ASKED) - prior for r in raw]
        seen = [rms_change(change[0, 0].numpy()) for change in changes]
        suggested = expected_drift(age)
        together = suggested * drift_factor(suggested, seen, len(seen))
        for k, tile in enumerate(raw):
            alone = suggested * drift_factor(suggested, seen[k : k + 1], 1)
            told = {"by_age": suggested, "alone": alone, "together": together, "known": error[k]}
            after = {
                how: float(
                    scale_free_rms(_correct(network, tile[None], prior, t) - true[k], weight)
                )
                for how, t in told.items()
            }
            found.append(Found(session, age, error[k], seen[k], after))
    return found


def _logs(images: list[np.ndarray]) -> torch.Tensor:
    return log_field(torch.from_numpy(np.stack(images).astype(np.float32))[:, None], SIZE)


def _correct(
    network: torch.nn.Module, raw: torch.Tensor, prior: torch.Tensor, told: float
) -> torch.Tensor:
    """Log background at the prior's level, its error told."""
    x = network_input(raw, prior, torch.tensor([told]))
    return prior + network(x.contiguous(memory_format=torch.channels_last))[:, :1] - x[:, 1:2]


def by_age(found: list[Found], age: float) -> dict[str, float]:
    """What is printed of one age."""
    some = [f for f in found if f.age_h == age]
    ratio = np.log([f.error / expected_drift(age) for f in some])
    line = {"age_h": round(age, 2), "error": _percent([f.error for f in some])}
    line |= {"log_mean": round(float(ratio.mean()), 2), "log_sd": round(float(ratio.std()), 2)}
    return line | {how: _percent([f.after[how] for f in some]) for how in some[0].after}


def _percent(values: list[float]) -> float:
    return round(100 * float(np.mean(values)), 2)


def fit(found: list[Found]) -> dict[str, float]:
    """Gain, floor and scatter of the change of greatest likelihood."""
    error = np.array([f.error for f in found])
    change = np.log([f.change for f in found])

    def unlikely(x: np.ndarray) -> float:
        gain, floor, scatter = np.exp(x)
        away = (change - 0.5 * np.log((gain * error) ** 2 + floor**2)) / scatter
        return float(np.mean(0.5 * away**2 + np.log(scatter)))

    best = np.exp(minimize(unlikely, np.log([0.7, 0.05, 0.4]), method="Nelder-Mead").x)
    cases = {(f.session, f.age_h) for f in found}
    within = [
        np.var([np.log(g.change) for g in found if (g.session, g.age_h) == case], ddof=1)
        for case in cases
    ]
    names = ("gain", "floor", "scatter", "scatter_of_tiles")
    values = (*best, np.sqrt(np.mean(within)))
    return {name: round(float(v), 3) for name, v in zip(names, values, strict=True)}


def main() -> None:
    """Print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--tiles", type=int, default=3)
    parser.add_argument("--group", choices=["seen", "held-out"], default="seen")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--model", default="default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = load_model(resolve_model(options.model)).network.to(
        memory_format=torch.channels_last
    )
    with torch.inference_mode():
        found = [f for k in range(options.sessions) for f in look(network, k, options)]
    for age in AGES_H:
        print(json.dumps(by_age(found, age)))
    print(json.dumps({"fit": fit(found)}))


if __name__ == "__main__":
    main()
