"""`txm-bgcorr simulate`: sessions of a simulated microscope, with the truth beside them."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_txm_bgcorr.cli.options import parse_grid
from napari_txm_bgcorr.core.errors import ConfigError, WriteError
from napari_txm_bgcorr.core.illumination import FAMILIES
from napari_txm_bgcorr.core.specimens import SPECIMENS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_txm_bgcorr.core.simulate import SimulatedScan

__all__ = ["simulate", "write_simulation"]

KINDS = ("tile", "series", "mosaic")
SETTINGS = "simulation.json"
PREFIX = {"references": "ref", "darks": "dark"}


def simulate(
    kind: Annotated[str, typer.Argument(help="tile, series (of projections) or mosaic.")],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder to make.")],
    grid: Annotated[
        str, typer.Option("--grid", metavar="ROWSxCOLUMNS", help="Mosaic: rows and columns.")
    ] = "5x5",
    projections: Annotated[int, typer.Option("--projections", help="Series: images.")] = 61,
    size: Annotated[
        int, typer.Option("--size", help="Pixels along a tile; the field is always 15 um.")
    ] = 512,
    specimen: Annotated[
        str | None,
        typer.Option("--specimen", help=f"One of {', '.join(SPECIMENS)}. Default: mixed."),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            "--family", help=f"Kind of illumination: {', '.join(FAMILIES)}. Default: drawn."
        ),
    ] = None,
    drift: Annotated[
        float, typer.Option("--drift", help="Change of the background with time, 1 is usual.")
    ] = 1.0,
    overlap: Annotated[
        float, typer.Option("--overlap", help="Mosaic: share of a tile its neighbour repeats.")
    ] = 0.2,
    jitter: Annotated[
        float,
        typer.Option("--jitter", help="Mosaic: greatest error of the stage, pixels of 512."),
    ] = 20.0,
    references: Annotated[
        int, typer.Option("--references", help="Images without specimen, before and after.")
    ] = 0,
    darks: Annotated[int, typer.Option("--darks", help="Images without beam.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same images.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier simulation in OUT.")
    ] = False,
) -> None:
    """Write a simulated scan as TIFF tiles, with the truth beside it.

    OUT holds the raw tiles (a mosaic's TileConfiguration.txt gives the nominal positions),
    OUT/truth the backgrounds (beam alone, without dark), the transmissions and, of a mosaic,
    their true positions; OUT/references and OUT/darks what was asked for.
    """
    from napari_txm_bgcorr.core import simulate as simulator

    common: dict[str, Any] = {
        "size": size,
        "specimen": specimen,
        "family": family,
        "drift": drift,
        "references": references,
        "darks": darks,
        "seed": seed,
    }
    _refuse_values(kind, {**common, "jitter": jitter})
    out = Path(os.path.abspath(out))
    _refuse_place(out, overwrite)
    settings: dict[str, Any] = {"kind": kind, **common}
    if kind == "mosaic":
        rows, columns = parse_grid(grid) or (5, 5)
        stage = {"overlap": overlap, "jitter_px": jitter}
        simulated = simulator.simulate_mosaic(rows, columns, **stage, **common)
        settings |= {"grid": [rows, columns], **stage}
    elif kind == "series":
        simulated = simulator.simulate_series(projections, **common)
    else:
        simulated = simulator.simulate_tile(**common)
    write_simulation(simulated, out, settings)
    typer.echo(f"{len(simulated.scan)} simulated images: {out}")


def _refuse_values(kind: str, values: dict[str, Any]) -> None:
    """Name the first option that is not usable."""
    for name, table in (("specimen", SPECIMENS), ("family", FAMILIES)):
        if values[name] is not None and values[name] not in table:
            raise ConfigError(f"--{name} {values[name]}: choose from {', '.join(table)}")
    if kind not in KINDS:
        raise ConfigError(f"{kind}: choose from {', '.join(KINDS)}")
    if not 32 <= values["size"] <= 4096 or values["size"] % 8:
        raise ConfigError(f"--size {values['size']}: give a multiple of 8 from 32 to 4096")
    for name in ("references", "darks", "seed", "jitter", "drift"):
        if not 0 <= values[name] < math.inf:
            raise ConfigError(f"--{name} {values[name]}: give 0 or more")


def _refuse_place(out: Path, overwrite: bool) -> None:
    """Refuse to replace what is no simulation, and places that cannot be written."""
    part = _part_of(out)
    for place in (out, part):
        with_files = place.is_dir() and any(place.iterdir())
        if place.exists() and not place.is_dir():
            raise WriteError(f"{place}: a file is in the way; choose another folder")
        if with_files and not (place / SETTINGS).is_file():
            raise WriteError(f"{place}: exists and is no simulation; choose another folder")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise WriteError(f"{out}: exists; choose another folder or pass --overwrite")


def _part_of(out: Path) -> Path:
    return out.with_name(out.name + ".part")


def write_simulation(simulated: SimulatedScan, out: Path, settings: dict[str, Any]) -> None:
    """Write a simulated scan as a folder of TIFF tiles.

    `OUT/<name>.tif` are the raw tiles, `OUT/truth/background` and `OUT/truth/transmission`
    hold float32 truth under the same names with a table of the true positions,
    `OUT/references` and `OUT/darks` the reference and dark images, and
    `OUT/simulation.json` the settings and the time of each tile and reference. The folder
    appears under its name when complete.

    Raises
    ------
    WriteError
        If the folder cannot be written.
    """
    part = _part_of(out)
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        times = {"times": simulated.scan.times, "flat_times": simulated.scan.flat_times}
        texts = {k: [str(t) for t in v] for k, v in times.items() if v is not None}
        (part / SETTINGS).write_text(json.dumps({**settings, **texts}, indent=1) + "\n")
        _write_tiles(simulated, part)
        if out.exists():
            shutil.rmtree(out)
        part.rename(out)
    except OSError as error:
        reason = error.strerror or f"{error} (is the disk full?)"
        raise WriteError(f"{out}: {reason}; choose another folder") from error


def _write_tiles(simulated: SimulatedScan, part: Path) -> None:
    scan = simulated.scan
    truths = {
        part / "truth/background": simulated.backgrounds,
        part / "truth/transmission": simulated.transmissions,
    }
    pixel_um = (scan.pixel_nm or 0) / 1000
    for folder in truths:
        folder.mkdir(parents=True)
    for i, name in enumerate(scan.names):
        for folder, images in ((part, scan.tiles), *truths.items()):
            _write(folder / f"{name}.tif", images[i], pixel_um)
    for kind, stack in (("references", scan.flats), ("darks", scan.darks)):
        if stack is None:
            continue
        (part / kind).mkdir()
        for i in range(stack.shape[0]):
            _write(part / kind / f"{PREFIX[kind]}_{i + 1:04d}.tif", stack[i], pixel_um)
    tables = {part: scan.positions_px, **dict.fromkeys(truths, simulated.positions_px)}
    for folder, positions in tables.items():
        if positions is not None:
            (folder / "TileConfiguration.txt").write_text(_table(scan.names, positions))


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


def _table(names: tuple[str, ...], positions_px: NDArray[np.float64]) -> str:
    """Fiji's table of tile positions; y comes first in `positions_px`, x in the table."""
    lines = ["dim = 2", ""]
    lines += [
        f"{name}.tif; ; ({x:.1f}, {y:.1f})"
        for name, (y, x) in zip(names, positions_px, strict=True)
    ]
    return "\n".join(lines) + "\n"
