"""Fine-tuning on a fresh instrument: error of unseen tiles against references, minutes and age.

A fresh instrument is a simulated session of an illumination family that the default model
never saw (`held_out` in `FAMILIES`). For every number of references the shipped model is
fine-tuned by the preset ``fine-tune``; then `correct` works on unseen tiles under unseen
specimens, taken some time after the newest reference. Told in per cent (`background_error_sf`,
mean over the tiles) by age (``10min``, ``2h``, ``8h``, and ``session``: evenly from 10 minutes to
8 hours):

- ``captured``: the newest reference as it is;
- ``alone``: no references, neither given nor carried;
- ``one``, ``scan``: `auto`, each tile by itself and all together; at step 0 (the default model)
  with the references given by hand, later with nothing given: the fine-tuned model carries them;
- ``simulated-none``, ``simulated-stale``: other instruments (what was forgotten).

The default model without references is ``alone`` of step 0: what a user has who does nothing. The
last lines lie on the straight line between the default model's weights (blend 0) and the
fine-tuned ones (1). ``cpu_s`` is the training process's time; worker processes come on top. With
``--out`` lines are added to a file, and what it holds already is not done again.

    python benchmarks/fine_tuning.py --minutes 5 --out curve.jsonl   # about 2 h on 2 free cores
    python benchmarks/fine_tuning.py --references 2 --steps 40       # a quick look
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_txm_bgcorr.backgrounds.registry import make_method
from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.core.training_images import ImageStack, TrainingData
from napari_txm_bgcorr.models.checkpoint import save_model
from napari_txm_bgcorr.models.embedded_references import choose_references
from napari_txm_bgcorr.models.tensors import Batch, scale_free_rms
from napari_txm_bgcorr.simulation import FAMILIES, SimulatedSession, draw_session, draw_specimen
from napari_txm_bgcorr.training.blend import WeightBlend
from napari_txm_bgcorr.training.config import load_config
from napari_txm_bgcorr.training.data.pairs import to_batch
from napari_txm_bgcorr.training.data.simulated import SimulatedPairs
from napari_txm_bgcorr.training.loop import Trainer, fit

SIZE = 256
NEWEST_H = -8.0  # of the session's clock
EVENING = np.datetime64("2026-05-01T20:00:00", "s")
SPAN_H = {"10min": (1 / 6, 1 / 4), "2h": (2, 2.1), "8h": (8, 8.1), "session": (1 / 6, 8)}
Found = dict[str, Any]


def references(session: SimulatedSession, count: int, seed: int) -> ImageStack:
    """Images without sample, two at a time every half hour, the newest at `NEWEST_H`."""
    rng = np.random.default_rng([seed, 1])
    hours = np.array([NEWEST_H - 0.5 * (k // 2) - 0.02 * (k % 2) for k in range(count)])
    clear = np.ones((SIZE, SIZE), np.float32)
    images = np.stack([session.expose(clear, hour, rng) for hour in hours])
    names = tuple(f"ref_{k + 1:02d}" for k in range(count))
    return ImageStack(images, names, ("today",) * count, _times(hours))


def _times(hours: Any) -> np.ndarray:
    return EVENING + np.round(np.asarray(hours) * 3600).astype("timedelta64[s]")


@dataclass(frozen=True)
class Unseen:
    """Tiles of one age, without references, and their true backgrounds `(N, Y, X)` counts."""

    scan: Scan
    truth: np.ndarray
    lit: np.ndarray

    def error(self, backgrounds: np.ndarray) -> float:
        """Mean scale-free error in per cent."""
        logs = torch.from_numpy(np.log(backgrounds / self.truth).astype(np.float32))[:, None]
        weight = torch.from_numpy(self.lit.astype(np.float32)).expand_as(logs)
        return round(100 * float(scale_free_rms(logs, weight).mean()), 2)

    def corrected(self, name: str, model: str, given: ImageStack | None, *, one: bool) -> float:
        """Error of what `correct` does, each tile by itself (`one`) or all together."""
        method, scan = make_method(name, model=model, device="cpu"), self.scan
        if given is not None:
            scan = replace(scan, flats=given.images, flat_times=given.times)
        parts = [[k] for k in range(len(scan))] if one else [list(range(len(scan)))]
        out = np.empty(self.truth.shape, np.float32)
        for part in parts:
            some = replace(
                scan,
                tiles=scan.tiles[part],
                times=scan.times[part],
                names=tuple(scan.names[k] for k in part),
            )
            out[part] = method.fit(some).background(some.tiles, np.arange(len(part)))
        return self.error(out)


def unseen(session: SimulatedSession, age: str, tiles: int, seed: int) -> Unseen:
    """Tiles of that age after the newest reference."""
    rng = np.random.default_rng([seed, 2, list(SPAN_H).index(age)])
    hours = NEWEST_H + np.linspace(*SPAN_H[age], tiles)
    specimens = [draw_specimen(rng, (SIZE, SIZE)) for _ in hours]
    counts = [session.expose(s, h, rng) for s, h in zip(specimens, hours, strict=True)]
    scan = Scan(
        tiles=np.stack(counts),
        kind="single",
        source=Source(Path("simulated"), "simulated"),
        names=tuple(f"tile{k}" for k in range(tiles)),
        times=_times(hours),
    )
    truth = np.stack([session.background(h) + session.dark for h in hours])
    return Unseen(scan, truth, session.aperture)


def errors(model: str, groups: dict[str, Unseen], given: ImageStack | None) -> Found:
    """Errors by how `correct` is used and by age."""
    return {
        "alone": {a: g.corrected("generator", model, None, one=False) for a, g in groups.items()},
        "one": {a: g.corrected("auto", model, given, one=True) for a, g in groups.items()},
        "scan": {a: g.corrected("auto", model, given, one=False) for a, g in groups.items()},
    }


@torch.inference_mode()
def forgotten(network: torch.nn.Module, others: dict[str, Batch]) -> Found:
    """Mean scale-free error of other instruments by case in per cent."""
    found = {}
    for case, batch in others.items():
        parts = zip(*(torch.split(t, 4) for t in batch), strict=True)
        rms = [scale_free_rms(network(x)[:, :1] - true, weight) for x, true, weight, _ in parts]
        found[case] = round(100 * float(torch.cat(rms).mean()), 2)
    return found


def run(family: str, count: int, seed: int, options: argparse.Namespace) -> Iterator[Found]:
    """Fine-tune once; yields a line at step 0, at each check and for each blend."""
    session = draw_session(np.random.default_rng(seed), size=SIZE, family=family)
    stack = references(session, count, seed)
    budget = [f"minutes={options.minutes}"] if options.minutes else ["minutes=null"]
    budget += [f"steps={options.steps}", f"data.workers={options.workers}"]
    config = load_config("fine-tune", [*budget, *options.set])
    groups = {age: unseen(session, age, options.tiles, seed) for age in options.ages}
    own = SimulatedPairs(config).validation()
    others = {f"simulated-{case}": to_batch(own[case]) for case in ("none", "stale")}
    newest = np.broadcast_to(stack.images[0].astype(np.float32), (options.tiles, SIZE, SIZE))
    line = {"captured": {age: group.error(newest) for age, group in groups.items()}}
    trainer = Trainer(config, options.device)
    start = errors("default", groups, stack) | forgotten(trainer.average, others)
    yield line | {"step": 0, "minutes": 0.0} | start
    carried, stated = choose_references([stack], config.remember), {}
    best, told = trainer.average, {}

    def tuned(network: torch.nn.Module) -> Found:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tuned.safetensors"
            metrics = {"validation_error_sf": stated}
            save_model(path, network, config.network, metrics=metrics, references=carried)
            return errors(str(path), groups, None) | forgotten(network, others)

    checks, began, spent_cpu = set(options.check), time.monotonic(), time.process_time()
    for step in fit(config, trainer, TrainingData(references=(stack,))):
        done = step.progress >= 1
        if step.improved:  # as a run's folder keeps them
            stated, told = step.validation, {"best": step.step, "blend": trainer.blend.share}
            best = copy.deepcopy(trainer.blend.of(trainer.average))
        if step.step and (step.step in checks or done):
            facts = {
                "step": step.step,
                "minutes": round(trainer.elapsed_s / 60, 2),
                "cpu_s": round(time.process_time() - spent_cpu, 1),
                "steps_per_s": round(step.step / (time.monotonic() - began), 3),
                "validation": {k: round(100 * v, 2) for k, v in step.validation.items()},
                "done": done,
            }
            before = time.process_time(), time.monotonic()
            yield line | facts | told | tuned(best)
            spent_cpu += time.process_time() - before[0]  # less the check's own
            began += time.monotonic() - before[1]
    every = WeightBlend(trainer.average, ())
    every.start = trainer.blend.start
    for share in options.blend if every.start else ():
        yield line | {"blend": share} | tuned(every.of(trainer.average, share))


def _done(out: Path | None) -> set[tuple[str, int, int]]:
    """Instruments and numbers of references whose last line is in the file."""
    if out is None or not out.exists():
        return set()
    lines = [json.loads(text) for text in out.read_text().splitlines()]
    return {(x["family"], x["seed"], x["references"]) for x in lines if x.get("done")}


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
    parser.add_argument("--ages", nargs="+", default=list(SPAN_H), choices=list(SPAN_H))
    parser.add_argument("--tiles", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    done = _done(options.out)
    for seed in options.seeds:
        for family in options.families:
            for count in options.references:
                key = {"family": family, "seed": seed, "references": count}
                if tuple(key.values()) in done:
                    continue
                for line in run(family, count, seed, options):
                    text = json.dumps(key | line)
                    print(text, flush=True)
                    if options.out is not None:
                        with options.out.open("a") as stream:
                            stream.write(text + "\n")


if __name__ == "__main__":
    main()
