"""How true the stated uncertainty is: shares of pixels within one and two standard deviations.

Run ``python benchmarks/uncertainty_coverage.py``: simulated sessions of the evaluation (families
of illumination that no training saw, unless ``--group seen``), each case with what its user has,
and the real scans of ``real_cases.json`` where ``--data`` or ``TXM_BGCORR_DATA`` names them.
Errors are log(B / B_true) over the lit field with one scale a tile removed. Shares by case, and
over all tiles by decile of the stated deviation; ``--pictures FOLDER`` draws the stated deviation
beside the true error.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from napari_txm_bgcorr.backgrounds.drift.model import DriftModel
from napari_txm_bgcorr.backgrounds.registry import make_method
from napari_txm_bgcorr.cli.real_suite import read_scene
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.evaluation.cases import CASES, draw_case
from napari_txm_bgcorr.evaluation.real_suite import MANIFEST, load_manifest
from napari_txm_bgcorr.workflows.config import CorrectionConfig
from napari_txm_bgcorr.workflows.prepare import method_of, open_scan

Image = NDArray[np.float32]
LIT, ERODE_PX = 0.25, 6  # as the real suite has them
DECILES = 10


@dataclass(frozen=True, eq=False)
class Judged:
    """Error and stated standard deviation `(n,)` of the judged pixels of one tile, log."""

    case: str
    tile: str
    error: Image
    sd: Image

    @property
    def ratio(self) -> float:
        """True rms error in units of the stated one."""
        return float(np.sqrt((self.error**2).mean() / (self.sd**2).mean()))

    def within(self, sigmas: float) -> float:
        """Share of pixels within so many standard deviations."""
        return float((np.abs(self.error) <= sigmas * self.sd).mean())


def main(given: Sequence[str] | None = None) -> list[Judged]:
    """Print the tables; give what was judged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("TXM_BGCORR_DATA"))
    parser.add_argument("--group", default="held-out", help="of simulated sessions")
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--size", type=int, default=256, help="of a simulated tile, px")
    parser.add_argument("--cases", nargs="*", default=list(CASES), help="simulated")
    parser.add_argument("--model", default="default")
    parser.add_argument("--pictures", type=Path, help="folder")
    options = parser.parse_args(given)
    judged = list(_simulated(options))
    if options.data is not None:
        judged += _real(Path(options.data), options.model)
    print("| case | tiles | true / stated | within 1 sd (%) | within 2 sd (%) |")
    print("|---|---:|---:|---:|---:|")
    for case in dict.fromkeys(one.case for one in judged):
        own = [one for one in judged if one.case == case]
        ratio, *shares = (
            np.mean([f(one) for one in own])
            for f in (lambda o: o.ratio, lambda o: o.within(1), lambda o: o.within(2))
        )
        print(f"| {case} | {len(own)} | {ratio:.2f} | " + _per_cent(shares))
    for name, real in (("simulated", False), ("real", True)):
        own = [one for one in judged if one.case.startswith("real") is real]
        if own:
            shares = [float(np.mean([one.within(s) for one in own])) for s in (1, 2)]
            print(f"| **{name}, all** | {len(own)} | | " + _per_cent(shares))
    _print_deciles([one for one in judged if not one.case.startswith("real")])
    return judged


def _per_cent(shares: Sequence[float]) -> str:
    return " | ".join(f"{100 * share:.0f}" for share in shares) + " |"


def _print_deciles(judged: list[Judged]) -> None:
    """Shares by decile of the stated deviation, over all tiles."""
    if not judged:
        return
    sd = np.concatenate([one.sd[::7] for one in judged])
    error = np.abs(np.concatenate([one.error[::7] for one in judged]))
    print("\n| stated deviation (%) | within 1 sd (%) | within 2 sd (%) |\n|---|---:|---:|")
    order = np.array_split(np.argsort(sd, kind="stable"), DECILES)
    for part in order:
        shares = [(error[part] <= s * sd[part]).mean() for s in (1, 2)]
        print(f"| {100 * sd[part[0]]:.2f} to {100 * sd[part[-1]]:.2f} | " + _per_cent(shares))


def _simulated(options: argparse.Namespace) -> Iterator[Judged]:
    for name in options.cases:
        for session in range(options.sessions):
            drawn = draw_case(CASES[name], options.group, session, options.size, 0)
            for k, (scan, truths) in enumerate(drawn.scans):
                method = make_method("auto", model=options.model)
                method.fit(scan)
                for i, truth in enumerate(truths):
                    label = f"{session}-{k}-{i}"
                    yield _judge(
                        name, label, scan, method, i, truth.reference, drawn.lit, options.pictures
                    )


def _judge(
    case: str, tile: str, scan: Scan, method: DriftModel, i: int, truth: Image,
    lit: NDArray[np.bool_], pictures: Path | None,
) -> Judged:  # fmt: skip
    index, dark = np.array([i], np.int64), scan.dark()
    beam = method.background(np.asarray(scan.tiles[i])[None], index)[0]
    beam = beam if dark is None else beam - dark
    error, sd = np.log(np.maximum(beam, 1e-3) / np.maximum(truth, 1e-3)), method.uncertainty(i)
    error -= error[lit].mean()
    if pictures is not None:
        _draw(pictures / f"{case.replace(' ', '-').replace(',', '')}-{tile}.png", error, sd, lit)
    return Judged(case, tile, error[lit], sd[lit])


def _real(data: Path, model: str) -> Iterator[Judged]:
    for case in load_manifest(data / MANIFEST):
        if case.check or case.fine_tune is not None:
            continue
        scene = read_scene(case, data)
        asked = CorrectionConfig(
            method="auto", model=model, references=tuple(data / p for p in case.references),
            darks=tuple(data / p for p in case.darks),
        )  # fmt: skip
        scan, method = open_scan(data / case.input, asked), method_of(asked)
        method.fit(scan)
        lit = binary_erosion(scene.truth > LIT * np.median(scene.truth), iterations=ERODE_PX)
        for i, name in enumerate(scan.names):
            if name in scene.judged and isinstance(method, DriftModel):
                yield _judge(f"real: {case.name}", name, scan, method, i, scene.truth, lit, None)


def _draw(path: Path, error: Image, sd: Image, lit: NDArray[np.bool_]) -> None:
    from matplotlib.figure import Figure

    limit = float(np.quantile(np.abs(error[lit]), 0.99))
    figure = Figure((9, 3.2), layout="constrained")
    shown = ((error, "error (log)", -limit, "RdBu"), (np.abs(error), "its size", 0, "magma"),
             (sd, "stated deviation", 0, "magma"))  # fmt: skip
    for axes, (image, title, low, colours) in zip(figure.subplots(1, 3), shown, strict=True):
        drawn = axes.imshow(np.where(lit, image, np.nan), vmin=low, vmax=limit, cmap=colours)
        axes.set(title=title, xticks=[], yticks=[])
        figure.colorbar(drawn, ax=axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
