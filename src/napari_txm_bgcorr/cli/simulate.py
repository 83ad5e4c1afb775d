"""`txm-bgcorr simulate`: sessions of a simulated microscope, with the truth beside them."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_txm_bgcorr.errors import ConfigError, WriteError

from .options import parse_grid

if TYPE_CHECKING:
    from napari_txm_bgcorr.simulation import SimulatedScan

__all__ = ["simulate"]

# written out, since asking the simulator would load SciPy for every `--help`; a test compares
SPECIMEN_HELP = (
    "One of empty, cells, membranes, fibres, fossil, particles, electrode, crystals, slab, "
    "clusters, vesicles, film, chip. Default: mixed."
)
FAMILY_HELP = (
    "Kind of illumination: bl01b, strong, ring, radial, tilt, speckled, half-dark, one-sided, "
    "ring-edge, bands, stripes, hollow, crescent. Default: drawn."
)
FORMATS = ("tiff", "xrm")
KINDS = ("tile", "series", "mosaic")


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
        typer.Option("--specimen", help=SPECIMEN_HELP),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option("--family", help=FAMILY_HELP),
    ] = None,
    drift: Annotated[
        float, typer.Option("--drift", help="Change of the background with time, 1 is usual.")
    ] = 1.0,
    overlap: Annotated[
        str,
        typer.Option(
            "--overlap",
            metavar="SHARE",
            help="Mosaic: share of a tile its neighbour repeats, or 'drawn': 3 to 20 %, most "
            "often 4 to 7 %.",
        ),
    ] = "0.2",
    jitter: Annotated[
        float,
        typer.Option("--jitter", help="Mosaic: greatest error of the stage, pixels of 512."),
    ] = 20.0,
    covered: Annotated[
        int,
        typer.Option("--covered-rows", help="Mosaic: rows about the middle that a slab covers."),
    ] = 0,
    references: Annotated[
        int, typer.Option("--references", help="Images without specimen, before and after.")
    ] = 0,
    darks: Annotated[int, typer.Option("--darks", help="Images without beam.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same images.")] = 0,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="Of the raw images: tiff (one file a tile) or xrm (one file as the instrument "
            "writes it, a series as .txrm; references and darks one file each, with their times).",
        ),
    ] = "tiff",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier simulation in OUT.")
    ] = False,
) -> None:
    """Write a simulated scan as TIFF tiles or as an Xradia file, with the truth beside it.

    OUT holds the raw tiles (a mosaic's TileConfiguration.txt gives the nominal positions, in
    a .xrm the stage does), OUT/truth the backgrounds (beam alone, without dark), the
    transmissions and, of a mosaic, their true positions; OUT/references and OUT/darks what
    was asked for.
    """
    from napari_txm_bgcorr.workflows import write_simulation

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
    if format not in FORMATS:
        raise ConfigError(f"--format {format}: choose from {', '.join(FORMATS)}")
    out = Path(os.path.abspath(out))
    _refuse_place(out, overwrite)
    own: dict[str, Any] = {}
    if kind == "mosaic":
        own = {"grid": list(parse_grid(grid) or (5, 5)), "overlap": _share(overlap)}
        own |= {"jitter_px": jitter, "covered_rows": covered}
    simulated = _simulated(kind, own, projections, common)
    write_simulation(simulated, out, {"kind": kind, **common, **own}, format)
    typer.echo(f"{len(simulated.scan)} simulated images: {out}")


def _simulated(
    kind: str, own: dict[str, Any], projections: int, common: dict[str, Any]
) -> SimulatedScan:
    """Draw a session of a kind, with what a mosaic has of its `own`."""
    from napari_txm_bgcorr.simulation import acquisition as simulator

    if kind == "mosaic":
        rows, columns = own["grid"]
        stage = {key: own[key] for key in ("overlap", "jitter_px", "covered_rows")}
        return simulator.simulate_mosaic(rows, columns, **stage, **common)
    if kind == "series":
        return simulator.simulate_series(projections, **common)
    return simulator.simulate_tile(**common)


def _share(text: str) -> float | None:
    """Overlap as a number; None where it is to be drawn."""
    if text == "drawn":
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--overlap {text}: give a share such as 0.05, or 'drawn'") from None


def _refuse_values(kind: str, values: dict[str, Any]) -> None:
    """Name the first option that is not usable."""
    from napari_txm_bgcorr.simulation import FAMILIES, SPECIMENS

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
    from napari_txm_bgcorr.workflows import SETTINGS, part_of

    part = part_of(out)
    for place in (out, part):
        with_files = place.is_dir() and any(place.iterdir())
        if place.exists() and not place.is_dir():
            raise WriteError(f"{place}: a file is in the way; choose another folder")
        if with_files and not (place / SETTINGS).is_file():
            raise WriteError(f"{place}: exists and is no simulation; choose another folder")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise WriteError(f"{out}: exists; choose another folder or pass --overwrite")
