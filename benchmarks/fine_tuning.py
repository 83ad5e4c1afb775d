"""Fine-tuning on a fresh instrument: error of unseen tiles against references and minutes.

A fresh instrument is a simulated session of an illumination family that the default model
never saw (`held_out` in `FAMILIES`). Its references are 8 hours older than its tiles. For
every number of references the shipped model is fine-tuned by the preset ``fine-tune``, and
these are told in per cent (`background_error_sf`, mean over unseen tiles under unseen
specimens):

- ``none``: the tile alone; ``prior``: the mean reference as the prior, its error told as its
  age suggests, as `correct` does it; ``known``: the same, if its true error were told;
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
from typing import Any

import numpy as np
import torch

from napari_txm_bgcorr.core.simulate import FAMILIES, Session, draw_session, draw_specimen
from napari_txm_bgcorr.core.training_data import ImageStack, TrainingData
from napari_txm_bgcorr.engine.blend import Blend
from napari_txm_bgcorr.engine.config import load_config
from napari_txm_bgcorr.engine.pairs import to_batch
from napari_txm_bgcorr.engine.priors import expected_drift
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


def unseen(session: Session, stack: ImageStack, tiles: int, seed: int) -> dict[str, Batch]:
    """Tiles of the next three hours in the two cases."""
    rng = np.random.default_rng([seed, 2])
    hours = np.linspace(0, 3, tiles)
    specimens = [draw_specimen(rng, (SIZE, SIZE)) for _ in hours]
    raw = _logs([session.expose(s, h, rng) for s, h in zip(specimens, hours, strict=True)])
    true = _logs([session.background(h) + session.dark for h in hours])
    prior = _logs([np.mean(stack.images, axis=0)]).expand_as(raw).contiguous()
    weight = torch.from_numpy(session.aperture.astype(np.float32)).expand_as(raw).contiguous()
    told = torch.full((tiles,), expected_drift(STALE_H))
    known = scale_free_rms(prior - true, weight)
    return {
        "none": to_batch(Pairs(raw, true, prior, weight, -torch.ones(tiles))),
        "prior": to_batch(Pairs(raw, true, prior, weight, told)),
        "known": to_batch(Pairs(raw, true, prior, weight, known)),
    }


def _logs(images: list[Any]) -> torch.Tensor:
    stack = torch.from_numpy(np.stack(images).astype(np.float32))
    return log_field(stack[:, None], SIZE)


@torch.inference_mode()
def errors(network: torch.nn.Module, cases: dict[str, Batch]) -> dict[str, float]:
    """Mean scale-free error by case in per cent."""
    found = {}
    for case, batch in cases.items():
        parts = zip(*(torch.split(t, 4) for t in batch), strict=True)
        rms = [scale_free_rms(network(x).float() - true, weight) for x, true, weight in parts]
        found[case] = round(100 * float(torch.cat(rms).mean()), 3)
    return found


def run(family: str, count: int, seed: int, options: argparse.Namespace) -> Iterator[dict]:
    """Fine-tune once; yields a line at step 0, at each check and for each blend."""
    session = draw_session(np.random.default_rng(seed), size=SIZE, family=family)
    stack = references(session, count, seed)
    budget = [f"minutes={options.minutes}"] if options.minutes else ["minutes=null"]
    budget += [f"steps={options.steps}", f"data.workers={options.workers}"]
    config = load_config("fine-tune", [*budget, *options.set])
    cases = unseen(session, stack, options.tiles, seed)
    own = SimulatedPairs(config).validation()
    cases |= {f"simulated-{case}": to_batch(own[case]) for case in ("none", "stale")}
    prior, (_, true, weight) = cases["prior"].inputs[:, 1:2], cases["prior"]
    captured = round(100 * float(scale_free_rms(prior - true, weight).mean()), 3)
    trainer = Trainer(config, options.device)
    line = {"family": family, "references": count, "captured": captured}
    yield line | {"step": 0, "minutes": 0.0} | errors(trainer.average, cases)
    checks, began, spent_cpu = set(options.check), time.monotonic(), time.process_time()
    for step in fit(config, trainer, TrainingData(references=(stack,))):
        done = step.progress >= 1
        if step.step and (step.step in checks or done):
            spent = {"minutes": round(trainer.elapsed_s / 60, 2)}
            spent |= {"cpu_s": round(time.process_time() - spent_cpu, 1)}
            speed = {"steps_per_s": round(step.step / (time.monotonic() - began), 3)}
            exported = trainer.blend.of(trainer.average)
            facts = spent | speed | {"blend": trainer.blend.share}
            yield line | {"step": step.step} | facts | errors(exported, cases)
            spent_cpu += time.process_time() - spent_cpu - facts["cpu_s"]  # less the check's own
    every = Blend(trainer.average, ())
    every.start = trainer.blend.start
    for share in options.blend if every.start else ():
        yield line | {"blend": share} | errors(every.of(trainer.average, share), cases)


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
