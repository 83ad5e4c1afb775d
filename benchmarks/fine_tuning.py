"""Fine-tuning on a fresh instrument: error of unseen tiles against references and minutes.

A fresh instrument is a simulated session of an illumination family that the default model
never saw (`held_out` in `FAMILIES`). Its references are 8 hours older than its tiles. For
every number of references the shipped model is fine-tuned by the preset ``fine-tune``, and
these are told in per cent (`background_error_sf`, mean over unseen tiles under unseen
specimens):

- ``none``: the tile alone; ``prior``: the newest reference as the prior as `correct` does it
  for an image by itself (its error told by what is seen of it, left aside where it is worse
  than none), ``scan`` as it does it for the tiles together; ``by_age``: its error told as its
  age suggests; ``known``: if its true error were told;
- ``captured``: that reference as it is, 8 hours stale;
- ``simulated-none``, ``simulated-stale``: other instruments (what was forgotten).

Step 0 is the default model. Checks are of the weights that would be exported at that step.
The last lines lie on the straight line between the default model's weights (blend 0) and the
fine-tuned ones (1). ``cpu_s`` is the training process's time; worker processes come on top.

    python benchmarks/fine_tuning.py --minutes 5                 # about 1 h on 2 free cores
    python benchmarks/fine_tuning.py --references 2 --steps 40   # a quick look
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.core.simulate import FAMILIES, Session, draw_session, draw_specimen
from napari_txm_bgcorr.core.training_data import ImageStack, TrainingData
from napari_txm_bgcorr.engine.blend import Blend
from napari_txm_bgcorr.engine.checkpoint import load_model, resolve_model
from napari_txm_bgcorr.engine.config import load_config
from napari_txm_bgcorr.engine.pairs import to_batch
from napari_txm_bgcorr.engine.prior_choice import LEFT
from napari_txm_bgcorr.engine.prior_error import ASKED, drift_factor, rms_change
from napari_txm_bgcorr.engine.priors import Prior, blind_error, measured, reference_prior
from napari_txm_bgcorr.engine.simulated import SimulatedPairs
from napari_txm_bgcorr.engine.tensors import Batch, Pairs, log_field, scale_free_rms
from napari_txm_bgcorr.engine.train import Trainer, fit

SIZE = 256
STALE_H = 8.0
EVENING = np.datetime64("2026-05-01T20:00:00", "s")


def references(session: Session, count: int, seed: int) -> ImageStack:
    """Images without sample, two at a time every half hour, the last 8 hours before the tiles."""
    rng = np.random.default_rng([seed, 1])
    hours = np.array([-STALE_H - 0.5 * (k // 2) - 0.02 * (k % 2) for k in range(count)])
    clear = np.ones((SIZE, SIZE), np.float32)
    images = np.stack([session.expose(clear, hour, rng) for hour in hours])
    times = EVENING + np.round(hours * 3600).astype("timedelta64[s]")
    names = tuple(f"ref_{k + 1:02d}" for k in range(count))
    return ImageStack(images, names, ("today",) * count, times)


def unseen(session: Session, stack: ImageStack, tiles: int, seed: int) -> Unseen:
    """Tiles of the next three hours, and their prior as `correct` takes it."""
    rng = np.random.default_rng([seed, 2])
    hours = np.linspace(0, 3, tiles)
    specimens = [draw_specimen(rng, (SIZE, SIZE)) for _ in hours]
    counts = [session.expose(s, h, rng) for s, h in zip(specimens, hours, strict=True)]
    scan = Scan(
        tiles=np.stack(counts),
        kind="mosaic",
        source=Source(Path("simulated"), "simulated"),
        names=tuple(f"tile{k}" for k in range(tiles)),
        times=EVENING + np.round(hours * 3600).astype("timedelta64[s]"),
        flats=stack.images,
        flat_times=stack.times,
    )
    reference = reference_prior(scan, None)
    prior = _logs([np.exp(reference.of(k)) for k in range(tiles)])
    true = _logs([session.background(h) + session.dark for h in hours])
    weight = torch.from_numpy(session.aperture.astype(np.float32)).expand_as(prior).contiguous()
    pairs = Pairs(_logs(counts), true, prior, weight, -torch.ones(tiles))
    return Unseen(scan, pairs, reference)


@dataclass(frozen=True)
class Unseen:
    """Tiles `pairs` of a scan (their errors are not told yet), and their prior."""

    scan: Scan
    pairs: Pairs
    reference: Prior

    def cases(self, network: torch.nn.Module, blind: float) -> dict[str, Batch]:
        """The tiles with their prior's error told in different ways.

        `blind` is the error without a prior that the model's card states.
        """
        pairs, prior = self.pairs, self.reference
        count = len(pairs.rms)
        changes = self._changes(network)
        by_age = [prior.rms(k) for k in range(count)]
        alone = [
            a * drift_factor(a, [c], 1, prior.known) for a, c in zip(by_age, changes, strict=True)
        ]
        scan = measured(prior, self.scan, lambda k: changes[k])
        together = torch.tensor([scan.rms(k) for k in range(count)])
        told = {
            "none": -torch.ones(count),
            "prior": torch.tensor([-1.0 if LEFT * rms > blind else rms for rms in alone]),
            "scan": together if LEFT * float(together.mean()) <= blind else -torch.ones(count),
            "by_age": torch.tensor(by_age),
            "known": scale_free_rms(pairs.log_prior - pairs.log_background, pairs.weight),
        }
        return {case: to_batch(pairs._replace(rms=rms.float())) for case, rms in told.items()}

    def _changes(self, network: torch.nn.Module) -> list[float]:
        x = to_batch(self.pairs._replace(rms=torch.full_like(self.pairs.rms, ASKED))).inputs
        change = torch.cat([network(part).float() for part in torch.split(x, 4)]) - x[:, 1:2]
        return [rms_change(one.numpy()) for one in change[:, 0]]


def _logs(images: list[Any]) -> torch.Tensor:
    stack = torch.from_numpy(np.stack(images).astype(np.float32))
    return log_field(stack[:, None], SIZE)


@torch.inference_mode()
def errors(
    network: torch.nn.Module, tiles: Unseen, blind: float, others: dict[str, Batch]
) -> dict[str, float]:
    """Mean scale-free error by case in per cent."""
    found = {}
    for case, batch in (tiles.cases(network, blind) | others).items():
        parts = zip(*(torch.split(t, 4) for t in batch), strict=True)
        rms = [scale_free_rms(network(x).float() - true, weight) for x, true, weight in parts]
        found[case] = round(100 * float(torch.cat(rms).mean()), 3)
    return found


def stated_error() -> float:
    """Error without a prior on the card of the model that fine-tuning starts from."""
    card = load_model(resolve_model("default")).card
    return blind_error(card["metrics"]["validation_error_sf"])


def run(family: str, count: int, seed: int, options: argparse.Namespace) -> Iterator[dict]:
    """Fine-tune once; yields a line at step 0, at each check and for each blend."""
    session = draw_session(np.random.default_rng(seed), size=SIZE, family=family)
    stack = references(session, count, seed)
    budget = [f"minutes={options.minutes}"] if options.minutes else ["minutes=null"]
    budget += [f"steps={options.steps}", f"data.workers={options.workers}"]
    config = load_config("fine-tune", [*budget, *options.set])
    tiles = unseen(session, stack, options.tiles, seed)
    own = SimulatedPairs(config).validation()
    others = {f"simulated-{case}": to_batch(own[case]) for case in ("none", "stale")}
    _, true, prior, weight, _ = tiles.pairs
    captured = round(100 * float(scale_free_rms(prior - true, weight).mean()), 3)
    trainer = Trainer(config, options.device)
    blind = stated_error()
    line = {"family": family, "references": count, "captured": captured}
    yield line | {"step": 0, "minutes": 0.0} | errors(trainer.average, tiles, blind, others)
    checks, began, spent_cpu = set(options.check), time.monotonic(), time.process_time()
    for step in fit(config, trainer, TrainingData(references=(stack,))):
        done = step.progress >= 1
        blind = blind_error(step.validation) if step.step and step.validation else blind
        if step.step and (step.step in checks or done):
            spent = {"minutes": round(trainer.elapsed_s / 60, 2)}
            spent |= {"cpu_s": round(time.process_time() - spent_cpu, 1)}
            speed = {"steps_per_s": round(step.step / (time.monotonic() - began), 3)}
            exported = trainer.blend.of(trainer.average)
            facts = spent | speed | {"blend": trainer.blend.share, "blind": round(100 * blind, 2)}
            yield line | {"step": step.step} | facts | errors(exported, tiles, blind, others)
            spent_cpu += time.process_time() - spent_cpu - facts["cpu_s"]  # less the check's own
    every = Blend(trainer.average, ())
    every.start = trainer.blend.start
    for share in options.blend if every.start else ():
        yield (
            line
            | {"blend": share}
            | errors(every.of(trainer.average, share), tiles, blind, others)
        )


def main() -> None:
    """Print one JSON object a line."""
    held_out = [name for name, family in FAMILIES.items() if family.held_out]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", default=held_out, choices=list(FAMILIES))
    parser.add_argument("--references", nargs="+", type=int, default=[1, 2, 5, 10, 20])
    parser.add_argument("--seeds", nargs="+", type=int, default=[101])
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--check", nargs="*", type=int, default=[25, 50, 100, 200, 300, 400])
    parser.add_argument("--blend", nargs="*", type=float, default=[])
    parser.add_argument("--tiles", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for seed in options.seeds:
        for family in options.families:
            for count in options.references:
                for line in run(family, count, seed, options):
                    print(json.dumps(line | {"seed": seed}), flush=True)


if __name__ == "__main__":
    main()
