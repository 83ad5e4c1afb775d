"""The simulator beside every real scan at hand: band-wise rms, range, levels, free share, noise.

Run ``python benchmarks/simulator_statistics.py``; it prints one row a statistic with the
simulator's spread and the real instruments' values, and writes
``docs/explanation/images/simulator-and-real.png`` (figures of all instruments) and
``simulator.png`` (pictures; real ones of TLS BL01B only). The real scans are found as in the
tests, through ``TXM_BGCORR_DATA``. ``hdf5/tooth.h5`` has two detector rows and ``hdf5/k11``
22, so neither has bands to compare. No real pixel enters the simulator: these figures do.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter, median_filter

from napari_txm_bgcorr.io.readers.dispatch import read
from napari_txm_bgcorr.simulation.acquisition import (
    FAMILIES,
    SPECIMENS,
    draw_session,
    draw_specimen,
)

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "explanation" / "images"
SIZE = 512  # every field is compared at this many pixels
SIGMAS = (1, 3, 8, 20, 60)  # Gaussian, pixels of 512
BANDS = ("1-3 px", "3-8 px", "8-20 px", "20-60 px", "> 60 px")
QUANTILES = (1, 5, 25, 75, 95, 99)
FREE = 0.02  # of the log transmission about its most frequent value, smoothed by 2 px
PEDESTALS = {"bl01b_lm": 2400.0, "bl01b_sb": 1750.0}  # least counts behind the aperture
COLOURS = {"bl01b_lm": "C0", "bl01b_sb": "C9", "aps8bm": "C3", "xradia": "C2"}
MARKERS = {"bl01b_lm": "o", "bl01b_sb": "s", "aps8bm": "^", "xradia": "D"}
PLACES = tuple(COLOURS)
KINDS = ("background", "raw", "transmission")
Image = NDArray[np.float32]
Figures = dict[str, float]
Collected = dict[str, list[tuple[str, Figures]]]


@dataclass(frozen=True)
class Shot:
    """One image of one kind in `KINDS`: counts without pedestal, or a transmission."""

    kind: str
    source: str
    image: NDArray[np.floating]


def clean(raw: NDArray[np.generic]) -> Image:
    """Counts without outlier pixels, averaged to `SIZE` where there are more of them."""
    counts = np.asarray(raw, np.float32)
    middle = median_filter(counts, 3)
    counts = np.where(np.abs(counts - middle) > 0.3 * middle + 5, middle, counts)
    step = len(counts) // SIZE
    if step > 1:
        counts = counts.reshape(SIZE, step, SIZE, step).mean((1, 3))
    return counts


def real_shots(data: Path) -> Iterator[Shot]:
    """Every real image, and every transmission whose reference is at hand."""

    def one(name: str, source: str) -> Image:
        return clean(read(data / name).tiles[0]) - PEDESTALS.get(source, 0.0)

    lm = "bl01b_lm_4x2/20230426_Lm-1-b2-60sm4x4_00{}.tif"
    empty = [one(lm.format(n), "bl01b_lm") for n in ("09", "13")]
    clear = np.maximum((empty[0] + empty[1]) / 2, 1)
    yield from (Shot("background", "bl01b_lm", image) for image in empty)
    for number in ("01", "02", "05", "06", "10", "14"):
        image = one(lm.format(number), "bl01b_lm")
        yield Shot("raw", "bl01b_lm", image)
        yield Shot("transmission", "bl01b_lm", image / clear)
    for path in sorted((data / "bl01b_sb_2x2").glob("*.tif")):
        yield Shot("raw", "bl01b_sb", one(str(path), "bl01b_sb"))
    flats = {}
    for name in ("xanesocv_8250", "xanesocv_8353", "xanessoc01_8353"):
        flats[name] = one(f"aps8bm/ref_{name}_0eV.xrm", "aps8bm")
        yield Shot("background", "aps8bm", flats[name])
    for path in sorted((data / "aps8bm").glob("fov*.xrm")):
        image = one(str(path), "aps8bm")
        flat = flats[path.stem[len("fov03_") : -len("_0eV")]]
        yield Shot("raw", "aps8bm", image)
        yield Shot("transmission", "aps8bm", image / np.maximum(flat, 1))
    chip = read(data / "xradia" / "test_chip00.xrm")
    image, flat = clean(chip.tiles[0]), clean(np.asarray(chip.flats)[0])
    yield Shot("raw", "xradia", image)
    yield Shot("background", "xradia", flat)
    yield Shot("transmission", "xradia", image / np.maximum(flat, 1))
    for tile in np.asarray(read(data / "xradia" / "txrm_test_chip_tomo.txrm").tiles)[::3]:
        yield Shot("raw", "xradia", clean(tile))


def simulated_shots(
    count: int, seed: int, family: str | None = None, specimen: str | None = None
) -> Iterator[Shot]:
    """The three kinds from `count` sessions with one specimen each, noise included."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        session = draw_session(rng, family=family)
        when = float(rng.uniform(0, 12))
        flat = clean(session.expose(np.ones((SIZE, SIZE), np.float32), when, rng)) - session.dark
        shown = draw_specimen(rng, (SIZE, SIZE), specimen)
        image = clean(session.expose(shown, when, rng)) - session.dark
        yield Shot("background", session.family, flat)
        yield Shot("raw", session.family, image)
        yield Shot("transmission", session.family, image / np.maximum(flat, 1))


def figures(shot: Shot) -> Figures:
    """Every statistic of one image, on the lit part of its field."""
    image, size = shot.image, len(shot.image)
    smooth = gaussian_filter(image, 2)
    low = 0.05 if shot.kind == "transmission" else 0.03
    lit = binary_erosion(smooth > low * np.percentile(smooth, 98), iterations=6)
    if shot.kind == "transmission":
        lit &= smooth < 3 * np.median(smooth)  # a reference without beam
    log = np.log(np.maximum(image, 0.2 * np.maximum(smooth, 1e-6)))
    inside = np.log(np.maximum(smooth, 1e-6))[lit]
    spread = np.percentile(inside, QUANTILES) - np.median(inside)
    found = dict(zip(BANDS, band_rms(log, lit, size / SIZE), strict=True))
    found["range p99/p1"] = float(np.exp(spread[-1] - spread[0]))
    found["pixel noise"] = noise_of(log, lit)
    for q, value in zip(QUANTILES, spread, strict=True):
        found[f"level {q} %"] = float(np.exp(value))
    if shot.kind == "transmission":
        found["free share"] = free_share(inside)
    return found


def band_rms(log: NDArray[np.floating], lit: NDArray[np.bool_], scale: float) -> list[float]:
    """Rms of each difference-of-Gaussian band, and of what is smoother than the last."""
    weight = lit.astype(np.float32)
    top, under = _low(log * weight, scale), _low(weight, scale)
    lows = [a / np.maximum(b, 1e-3) for a, b in zip(top, under, strict=True)]
    small = weight.reshape(len(lit) // 4, 4, -1, 4).mean((1, 3)) > 0.5
    masks = (lit, lit, small, small)
    bands = [lows[0] - lows[1], lows[1] - lows[2], lows[3] - lows[4], lows[4] - lows[5]]
    found = [float(band[mask].std()) for band, mask in zip(bands, masks, strict=True)]
    return [*found, float(lows[5][small].std())]


def _low(image: NDArray[np.floating], scale: float) -> list[Image]:
    """Blurred by 1, 3, 8, and on pixels four times as large by 8, 20, 60."""
    small = image.reshape(len(image) // 4, 4, -1, 4).mean((1, 3))
    fine = [gaussian_filter(image, s * scale) for s in SIGMAS[:3]]
    return fine + [gaussian_filter(small, s * scale / 4) for s in SIGMAS[2:]]


def noise_of(log: NDArray[np.floating], lit: NDArray[np.bool_]) -> float:
    """Relative noise of a pixel, from second differences in both directions."""
    second = np.diff(np.diff(log, 2, axis=0), 2, axis=1) / 6
    values = second[lit[1:-1, 1:-1]]
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def free_share(log: NDArray[np.floating]) -> float:
    """Share of pixels within `FREE` of the most frequent log transmission."""
    edges = np.arange(log.min(), log.max() + FREE, FREE / 4)
    counts, _ = np.histogram(log, edges)
    around = np.convolve(counts, np.ones(8), "same")  # windows of 2 FREE
    return float(around.max() / len(log))


def collect(shots: Iterator[Shot]) -> Collected:
    """Figures of every image by kind, with where it is from."""
    found: Collected = {kind: [] for kind in KINDS}
    for shot in shots:
        found[shot.kind].append((shot.source, figures(shot)))
    return found


def report(real: Collected, made: Collected) -> int:
    """Print one row a statistic; return how many real values lie beyond the simulated ones."""
    beyond = 0
    for kind in KINDS:
        print(
            f"\n{kind:22s} simulated 1, 25, 50, 75, 99 %                real (place in simulated)"
        )
        for name in made[kind][0][1]:
            values = np.array([f[name] for _, f in made[kind]])
            five = " ".join(f"{v:8.4f}" for v in np.percentile(values, (1, 25, 50, 75, 99)))
            parts = []
            for source in PLACES:
                mine = [f[name] for s, f in real[kind] if s == source]
                if not mine:
                    continue
                at = [float((values < v).mean()) for v in mine]
                beyond += sum(not 0 < a < 1 for a in at)
                mark = "!" if min(at) == 0 or max(at) == 1 else ""
                parts.append(
                    f"{source} {min(mine):.3f}-{max(mine):.3f} ({min(at):.2f}-{max(at):.2f}){mark}"
                )
            print(f"{name:14s} {five}   " + "; ".join(parts))
    return beyond


def draw_figures(real: Collected, made: Collected) -> None:
    """Write the plot of all statistics: simulated spread as bands, real images as points."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 3, figsize=(15, 12), layout="constrained")
    levels = [f"level {q} %" for q in QUANTILES]
    for row, kind in zip(axes, KINDS, strict=True):
        others = ["range p99/p1", "pixel noise"]
        others += ["free share"] if kind == "transmission" else []
        for axis, names, title in zip(
            row,
            (list(BANDS), levels, others),
            ("rms of the log by band", "level over median", "range, noise, free share"),
            strict=True,
        ):
            _spread(axis, names, made[kind])
            for source, found in real[kind]:
                shift = 0.22 * (PLACES.index(source) / (len(PLACES) - 1) - 0.5)
                axis.plot(
                    np.arange(len(names)) + shift,
                    [found[n] for n in names],
                    MARKERS[source],
                    color=COLOURS[source],
                    ms=5,
                    mec="k",
                    mew=0.4,
                )
            axis.set_yscale("log")
            images = real[kind] + made[kind]
            least = min(np.percentile([f[n] for _, f in images], 1) for n in names)
            axis.set_ylim(bottom=0.8 * max(least, 1e-4))
            axis.set_title(f"{kind}: {title}", fontsize=10)
    for source in PLACES:
        axes[0, 0].plot([], [], MARKERS[source], color=COLOURS[source], mec="k", label=source)
    title = "real images; grey: simulated, 1 to 99 % and 25 to 75 %; line: median"
    figure.legend(loc="outside lower center", ncols=len(PLACES), title=title)
    figure.savefig(IMAGES / "simulator-and-real.png", dpi=70)


def draw_pictures(data: Path, seed: int) -> None:
    """Write raw tiles of BL01B, simulated beams of every family, and every kind of specimen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown: list[tuple[str, Image]] = []
    for number in ("01", "06", "09"):
        path = data / f"bl01b_lm_4x2/20230426_Lm-1-b2-60sm4x4_00{number}.tif"
        shown.append((f"real raw tile, BL01B {number}", clean(read(path).tiles[0])))
    rng = np.random.default_rng(seed)
    for k, kind in enumerate(("vesicles", "clusters", "electrode")):
        session = draw_session(rng, family=("bl01b", "half-dark", "bl01b")[k])
        raw = session.expose(draw_specimen(rng, (SIZE, SIZE), kind), 0.0, rng)
        shown.append((f"simulated raw tile: {session.family}, {kind}", clean(raw)))
    for name in FAMILIES:
        session = draw_session(rng, family=name)
        flat = session.expose(np.ones((SIZE, SIZE), np.float32), 0.0, rng)
        shown.append((f"illumination: {name}", clean(flat)))
    shown += [(f"specimen: {kind}", draw_specimen(rng, (SIZE, SIZE), kind)) for kind in SPECIMENS]
    figure, axes = plt.subplots(-(-len(shown) // 6), 6, figsize=(15, 14), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, image) in zip(axes.flat, shown, strict=False):
        low, high = np.percentile(image, (0.5, 99.7))
        fixed = (0.2, 1.3) if title.startswith("specimen") else (low, high)
        axis.imshow(image[::2, ::2], cmap="gray", vmin=fixed[0], vmax=fixed[1])
        axis.set_title(title, fontsize=8)
    figure.savefig(IMAGES / "simulator.png", dpi=64)


def _spread(axis: Any, names: list[str], made: list[tuple[str, Figures]]) -> None:
    table = np.array([[f[n] for n in names] for _, f in made])
    low, lower, middle, upper, high = np.percentile(table, (1, 25, 50, 75, 99), axis=0)
    at = np.arange(len(names))
    axis.bar(at, high - low, 0.7, bottom=low, color="0.85")
    axis.bar(at, upper - lower, 0.7, bottom=lower, color="0.7")
    axis.hlines(middle, at - 0.35, at + 0.35, color="k", lw=1)
    axis.set_xticks(at, names, fontsize=8)


def main() -> None:
    """Print the tables and draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--family", help="only this one")
    parser.add_argument("--specimen", help="only this one")
    options = parser.parse_args()
    data = Path(os.environ.get("TXM_BGCORR_DATA", ROOT.parent / "shared" / "data"))
    real = collect(real_shots(data))
    made = collect(
        simulated_shots(options.sessions, options.seed, options.family, options.specimen)
    )
    beyond = report(real, made)
    total = sum(len(found) * len(found[0][1]) for found in real.values())
    print(f"\n{beyond} of {total} real values lie beyond all simulated ones")
    draw_figures(real, made)
    draw_pictures(data, options.seed)


if __name__ == "__main__":
    main()
