"""`txm-bgcorr simulate`: sessions of a simulated microscope, with the truth beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_txm_bgcorr.cli.options import parse_grid
from napari_txm_bgcorr.core.errors import ConfigError, WriteError

if TYPE_CHECKING:
    from napari_txm_bgcorr.core.simulate import SimulatedScan

__all__ = ["simulate", "write_simulation"]

KINDS = ("tile", "series", "mosaic")


def simulate(
    kind: Annotated[str, typer.Argument(help="tile, series or mosaic.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    grid: Annotated[str, typer.Option("--grid", help="Mosaic: rows x columns.")] = "5x5",
    projections: Annotated[int, typer.Option("--projections", help="Series: images.")] = 61,
    size: Annotated[int, typer.Option("--size", help="Tile size (px).")] = 512,
    specimen: Annotated[str | None, typer.Option("--specimen", help="Kind; default any.")] = None,
    family: Annotated[str | None, typer.Option("--family", help="Illumination family.")] = None,
    drift: Annotated[float, typer.Option("--drift", help="Times the usual drift.")] = 1.0,
    references: Annotated[int, typer.Option("--references", help="Reference images.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same images.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Write a simulated scan as TIFF tiles, with its true backgrounds and transmissions."""
    from napari_txm_bgcorr.core import simulate as simulator

    tables = {"specimen": simulator.SPECIMENS, "family": simulator.FAMILIES}
    for name, value in (("specimen", specimen), ("family", family)):
        if value is not None and value not in tables[name]:
            raise ConfigError(f"--{name} {value}: choose from {', '.join(tables[name])}")
    if kind not in KINDS:
        raise ConfigError(f"{kind}: choose from {', '.join(KINDS)}")
    if size < 32 or size % 8:
        raise ConfigError(f"--size {size}: give a multiple of 8 from 32 on")
    if out.exists() and not overwrite:
        raise WriteError(f"{out}: exists; choose another folder or pass --overwrite")
    common: dict[str, Any] = {
        "size": size,
        "specimen": specimen,
        "family": family,
        "drift": drift,
        "references": references,
        "seed": seed,
    }
    if kind == "mosaic":
        rows, columns = parse_grid(grid) or (5, 5)
        simulated = simulator.simulate_mosaic(rows, columns, **common)
    elif kind == "series":
        simulated = simulator.simulate_series(projections, **common)
    else:
        simulated = simulator.simulate_tile(**common)
    write_simulation(simulated, out, {"kind": kind, **common})
    typer.echo(f"{len(simulated.scan)} simulated images: {out}")


def write_simulation(simulated: SimulatedScan, out: Path, settings: dict[str, Any]) -> None:
    """Write a simulated scan as a folder of TIFF tiles.

    `OUT/<name>.tif` are the raw tiles, `OUT/truth/background` and `OUT/truth/transmission`
    hold float32 truth under the same names, `OUT/references` the reference images, and
    `OUT/simulation.json` the settings. The folder appears under its name when complete.

    Raises
    ------
    WriteError
        If the folder cannot be written.
    """
    part = out.with_name(out.name + ".part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        _write_tiles(simulated, part)
        (part / "simulation.json").write_text(json.dumps(settings, indent=1) + "\n")
        if out.exists():
            shutil.rmtree(out)
        part.rename(out)
    except OSError as error:
        raise WriteError(f"{out}: {error.strerror or error}; choose another folder") from error


def _write_tiles(simulated: SimulatedScan, part: Path) -> None:
    scan = simulated.scan
    for folder in ("truth/background", "truth/transmission"):
        (part / folder).mkdir(parents=True)
    pixel_um = (scan.pixel_nm or 0) / 1000
    for i, name in enumerate(scan.names):
        _write(part / f"{name}.tif", scan.tiles[i], pixel_um)
        _write(part / "truth/background" / f"{name}.tif", simulated.backgrounds[i], pixel_um)
        _write(part / "truth/transmission" / f"{name}.tif", simulated.transmissions[i], pixel_um)
    if scan.flats is not None:
        (part / "references").mkdir()
        for i in range(scan.flats.shape[0]):
            _write(part / "references" / f"ref_{i + 1:04d}.tif", scan.flats[i], pixel_um)
    if scan.positions_px is not None:
        (part / "TileConfiguration.txt").write_text(_tile_configuration(scan.names, scan))


def _write(path: Path, image: Any, pixel_um: float) -> None:
    import numpy as np
    import tifffile

    resolution = (1 / pixel_um, 1 / pixel_um) if pixel_um else None
    tifffile.imwrite(
        path,
        np.ascontiguousarray(image),
        imagej=True,
        resolution=resolution,
        metadata={"unit": "um", "axes": "YX"} if pixel_um else {"axes": "YX"},
    )


def _tile_configuration(names: tuple[str, ...], scan: Any) -> str:
    lines = ["dim = 2", ""]
    lines += [
        f"{name}.tif; ; ({x:.1f}, {y:.1f})"
        for name, (y, x) in zip(names, scan.positions_px, strict=True)
    ]
    return "\n".join(lines) + "\n"
