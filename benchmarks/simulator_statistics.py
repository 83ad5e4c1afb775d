"""Simulated beside real BL01B tiles: band-wise rms, spectrum and pictures.

Run ``python benchmarks/simulator_statistics.py``; it prints a table and writes
``docs/explanation/images/simulator.png``. The real tiles are found as in the tests, through
``TXM_BGCORR_DATA``; without them only the published figures of clean flats are compared.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter, median_filter

from napari_txm_bgcorr.core.simulate import Session, draw_session, draw_specimen

ROOT = Path(__file__).resolve().parents[1]
BANDS = ((1, 3), (3, 8), (8, 20), (20, 60))  # Gaussian sigmas, pixels of 512
CLEAN_FLAT = (0.010, 0.012, 0.014, 0.028)  # measured on clean BL01B flats
REAL_PEDESTAL = 2050  # least counts behind the aperture of the real tiles
Image = NDArray[np.float32]


def clean(raw: NDArray[np.uint16]) -> Image:
    """Raw counts without outlier pixels."""
    counts = raw.astype(np.float32)
    middle = median_filter(counts, 3)
    return np.where(np.abs(counts - middle) > 0.15 * middle, middle, counts)


def lit(counts: Image, pedestal: float) -> NDArray[np.bool_]:
    """Pixels in front of the aperture."""
    smooth = gaussian_filter(counts, 2)
    return smooth > pedestal + 0.35 * (np.median(smooth) - pedestal)


def band_rms(log: Image, mask: NDArray[np.bool_], *, robust: bool) -> NDArray[np.float64]:
    """Rms of each difference-of-Gaussian band within the mask; `robust`: from the median."""
    weight = mask.astype(np.float32)

    def low(sigma: float) -> Image:
        return gaussian_filter(log * weight, sigma) / np.maximum(
            gaussian_filter(weight, sigma), 1e-3
        )

    inner = binary_erosion(mask, iterations=8)
    found = []
    for fine, coarse in BANDS:
        band = (low(fine) - low(coarse))[inner]
        spread = 1.4826 * np.median(np.abs(band - np.median(band)))
        found.append(spread if robust else band.std())
    return np.array(found)


def spectrum(log: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Radial power spectrum of the middle 384 px, parabola removed; cycles per 512 px."""
    part = log[64:448, 40:424]
    axis = np.linspace(-1, 1, 384)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    terms = np.stack([y**i * x**j for i in range(3) for j in range(3 - i)]).reshape(6, -1).T
    part = part - (terms @ np.linalg.lstsq(terms, part.ravel(), rcond=None)[0]).reshape(384, 384)
    window = np.outer(np.hanning(384), np.hanning(384))
    power = np.abs(np.fft.fft2(part * window)) ** 2 / (window**2).sum()
    k = np.hypot(*np.meshgrid(*[np.fft.fftfreq(384, 1 / 512)] * 2))
    edges = np.geomspace(2.5, 256, 22)
    which = np.digitize(k.ravel(), edges)
    means = np.array([power.ravel()[which == i].mean() for i in range(1, len(edges))])
    return np.sqrt(edges[1:] * edges[:-1]), means


def shared(tiles: list[Image]) -> Image:
    """Log of the pattern the tiles have in common: their median."""
    return np.median([np.log(t / np.median(t)) for t in tiles], axis=0).astype(np.float32)


def draw_tiles(session: Session, rng: np.random.Generator, kind: str | None) -> list[Image]:
    """Four tiles of a session taken within 16 minutes."""
    size = (session.size, session.size)
    return [
        clean(session.expose(draw_specimen(rng, size, kind), hour, rng))
        for hour in np.linspace(0, 0.2, 4)
    ]


def read_real() -> list[Image]:
    """The real 2 x 2 mosaic, or nothing."""
    import tifffile

    folder = Path(os.environ.get("TXM_BGCORR_DATA", ROOT.parent / "shared" / "data"))
    return [clean(tifffile.imread(p)) for p in sorted((folder / "bl01b_sb_2x2").glob("*.tif"))]


def measure(tiles: list[Image], pedestal: float) -> dict[str, NDArray[np.float64]]:
    """Band rms of the tiles and of what they share."""
    masks = [lit(t, pedestal) for t in tiles]
    raw = [band_rms(np.log(t), m, robust=True) for t, m in zip(tiles, masks, strict=True)]
    common = band_rms(shared(tiles), np.all(masks, axis=0), robust=True)
    return {"raw": np.mean(raw, axis=0), "shared": common}


def row(name: str, values: NDArray[np.float64], target: NDArray[np.float64]) -> str:
    """One line of the table: rms a band, then its ratio to the target."""
    ratio = values / target
    marks = [f"{r:5.2f}{' ' if abs(r - 1) <= 0.3 else '!'}" for r in ratio]
    return f"{name:34s}" + " ".join(f"{v:.4f}" for v in values) + "   " + " ".join(marks)


def main() -> None:
    """Print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=16)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    flats, raws, commons, spectra, pictures = [], [], [], [], []
    smooth, drawn = [], 0
    while len(flats) < options.sessions:
        session = draw_session(rng, family="bl01b")
        pedestal, drawn = float(session.dark.mean()), drawn + 1
        flat = clean(session.expose(np.ones((512, 512), np.float32), 0.0, rng))
        mask = lit(flat, pedestal)
        flats.append(band_rms(np.log(flat), mask, robust=False))
        level = gaussian_filter(flat * mask, 25) / np.maximum(
            gaussian_filter(mask * 1.0, 25), 0.05
        )
        level = level[mask] / np.median(level[mask])
        smooth.append([level.min(), level.max()])
        tiles = draw_tiles(session, rng, "electrode")
        found = measure(tiles, pedestal)
        raws.append(found["raw"])
        commons.append(found["shared"])
        if mask[64:448, 40:424].all():
            spectra.append(spectrum(shared(tiles))[1])
            pictures.append((tiles, shared(tiles)))
    print(f"{'':34s}" + " ".join(f"{a:2d}-{b:<3d}" for a, b in BANDS) + "   ratio (! beyond 30 %)")
    target = np.array(CLEAN_FLAT)
    print(row("clean flats, measured", target, target))
    print(row("clean flats, simulated", np.mean(flats, axis=0), target))
    print(f"smooth part over median: {np.mean(smooth, axis=0).round(2)} (measured 0.71 to 1.22)")
    real = read_real()
    if real:
        found = measure(real, REAL_PEDESTAL)
        print(row("raw tiles, real", found["raw"], found["raw"]))
        print(row("raw tiles, simulated", np.median(raws, axis=0), found["raw"]))
        print(row("pattern shared by 4, real", found["shared"], found["shared"]))
        print(row("pattern shared by 4, simulated", np.median(commons, axis=0), found["shared"]))
    draw(real, pictures, spectra, (np.median(raws, axis=0), np.median(commons, axis=0)))


def draw(
    real: list[Image],
    pictures: list[tuple[list[Image], Image]],
    spectra: list[NDArray[np.float64]],
    bands: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    """Write the page's picture: tiles, shared patterns, bands and spectra."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 4, figsize=(13, 9.6), layout="constrained")
    shown = [("real", t) for t in real[1:3]] + [("simulated", p[0][1]) for p in pictures[:6]]
    for axis, (label, tile) in zip(axes.flat[:6], shown, strict=False):
        low, high = np.percentile(tile, (2, 99.8))
        axis.imshow(tile, cmap="gray", vmin=low, vmax=high)
        axis.set_title(f"{label}: raw tile", fontsize=9)
    commons = [("simulated", p[1]) for p in pictures[:3]]
    commons = ([("real", shared(real))] if real else []) + commons
    for axis, (label, log) in zip(axes.flat[6:10], commons, strict=False):
        axis.imshow(log - gaussian_filter(log, 30), cmap="gray", vmin=-0.08, vmax=0.08)
        axis.set_title(f"{label}: shared pattern, high-passed", fontsize=9)
    for axis in axes.flat[:10]:
        axis.axis("off")
    where = np.arange(len(BANDS))
    bars = [("simulated raw", bands[0]), ("simulated shared", bands[1])]
    if real:
        found = measure(real, REAL_PEDESTAL)
        bars += [("real raw", found["raw"]), ("real shared", found["shared"])]
    for i, (label, values) in enumerate(bars):
        axes.flat[10].bar(where + i * 0.2 - 0.3, values, 0.2, label=label)
    axes.flat[10].set_xticks(where, [f"{a}-{b} px" for a, b in BANDS])
    axes.flat[10].set_title("relative rms by band", fontsize=9)
    axes.flat[10].legend(fontsize=7)
    axis = axes.flat[11]
    k, _ = spectrum(shared(pictures[0][0]))
    axis.fill_between(k, np.min(spectra, axis=0), np.max(spectra, axis=0), alpha=0.2)
    axis.loglog(k, np.median(spectra, axis=0), label="simulated shared")
    if real:
        axis.loglog(k, spectrum(shared(real))[1], "k", label="real shared")
    axis.set_xlabel("cycles per field", fontsize=8)
    axis.set_title("power spectrum of the log pattern", fontsize=9)
    axis.legend(fontsize=7)
    figure.savefig(ROOT / "docs" / "explanation" / "images" / "simulator.png", dpi=80)


if __name__ == "__main__":
    main()
