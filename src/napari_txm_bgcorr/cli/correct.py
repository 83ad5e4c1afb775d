"""`txm-bgcorr correct`: the command line of the correction."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_txm_bgcorr.errors import ConfigError

from .options import Device, Grid, JsonFlag, PixelNm, on_command_line, parse_grid, split_parts

if TYPE_CHECKING:
    from napari_txm_bgcorr.workflows import CorrectionConfig

__all__ = ["correct"]

METHOD_HELP = (
    "How the background is found: auto (the network with the best help at hand: references, "
    "else the other tiles), generator (the same), captured (the references as they are), "
    "tile-median (of 3 tiles or more), smooth, envelope (from one tile) or eigen-flats (3 "
    "references or more)."
)
REFERENCE_HELP = (
    "Image without the sample (flat field), or a folder of them; may be repeated. Default: "
    "what the input holds."
)
DARK_HELP = (
    "Image without beam, or a folder of them; may be repeated. Default: as above. 'aperture' "
    "takes the counts of a corner that the aperture closes."
)
SAVE_HELP = (
    "What to write, some of raw,background,corrected,mask (1 where the result is valid),"
    "uncertainty (standard deviation of the log background; auto and --joint state it)."
)
SCHEDULER_HELP = (
    "Let the workers of dask.distributed do the work: its address, local:N (N processes here) or "
    "slurm:FILE (a YAML file about the queue). Writes omezarr."
)
SHARD_HELP = (
    "Do the I-th of N shares, for job arrays: start all N with the same OUT, the last to finish "
    "completes it. fit: solve once for all shares, before them. With several inputs: whole inputs "
    "by turn. join: only complete."
)
STITCH_HELP = (
    "Also blend the corrected tiles of a mosaic into one picture that can be zoomed, beside OUT: "
    "OUT-stitched.ome.zarr. See the command stitch for more."
)
JOINT_HELP = (
    "Refine the backgrounds of a whole mosaic or series together, where that helps. Default: "
    "auto does, the other methods do not."
)
COMBINE_HELP = (
    "How captured makes one of several references: interpolated (default: mean of each visit to "
    "the reference position, in time between visits), mean or median (of all, pixel by pixel, as "
    "other programs do), levelled-mean, levelled-median (each visit's brought to one level)."
)
I0_HELP = (
    "Counts of the open beam, median of the lit field, dark removed if the scan has dark images: "
    "sets the level."
)
POSITIONS_HELP = (
    "Also write the registered places of a mosaic's tiles, TileConfiguration.registered.txt."
)
CONFIG_HELP = (
    "Take the options from a YAML file (see --save-config), or from an earlier output, whose "
    "correction is repeated; options of this command line come first."
)
SAVE_CONFIG_HELP = "Write the options to a YAML file for --config, and correct nothing."
FORMAT_HELP = "omezarr (one store), ometiff (one file a part) or tiff (one file a tile)."


def correct(
    ctx: typer.Context,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH...", help="Raw files, or folders of tiles."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="Folder (or store) to make."),
    ] = None,
    method: Annotated[str, typer.Option("--method", metavar="NAME", help=METHOD_HELP)] = "auto",
    model: Annotated[
        str,
        typer.Option("--model", help="The network: a model's name, weights file or run folder."),
    ] = "default",
    reference: Annotated[
        list[Path] | None, typer.Option("--reference", metavar="PATH", help=REFERENCE_HELP)
    ] = None,
    dark: Annotated[
        list[Path] | None, typer.Option("--dark", metavar="PATH", help=DARK_HELP)
    ] = None,
    device: Device = "auto",
    save: Annotated[
        str, typer.Option("--save", metavar="PARTS", help=SAVE_HELP)
    ] = "raw,background,corrected",
    format: Annotated[str, typer.Option("--format", metavar="NAME", help=FORMAT_HELP)] = "omezarr",
    grid: Grid = None,
    pixel_nm: PixelNm = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace an earlier result in OUT, once the new is done."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Correct even what is already corrected.")
    ] = False,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="WHERE", help=SCHEDULER_HELP)
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N|fit|join", help=SHARD_HELP)
    ] = None,
    stitch: Annotated[bool, typer.Option("--stitch", help=STITCH_HELP)] = False,
    joint: Annotated[bool | None, typer.Option("--joint/--no-joint", help=JOINT_HELP)] = None,
    combine: Annotated[
        str | None, typer.Option("--combine", metavar="NAME", help=COMBINE_HELP)
    ] = None,
    i0: Annotated[float | None, typer.Option("--i0", metavar="COUNTS", help=I0_HELP)] = None,
    write_positions: Annotated[
        bool, typer.Option("--write-positions", help=POSITIONS_HELP)
    ] = False,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help=CONFIG_HELP)
    ] = None,
    save_config: Annotated[
        Path | None, typer.Option("--save-config", metavar="FILE", help=SAVE_CONFIG_HELP)
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Divide out the background, predicted from the raw data, of tiles, series and mosaics.

    corrected = (raw - dark) / (background - dark): transmission, 1 where nothing is in the beam.
    Raw files are never changed. Give an interrupted command again and it goes on.
    """
    from napari_txm_bgcorr.workflows import Bars, CorrectionConfig, load_config
    from napari_txm_bgcorr.workflows import correct as run_correction

    values: dict[str, tuple[str, Any]] = {  # name of the parameter above, and its value
        "inputs": ("paths", tuple(paths or ())),
        "output": ("out", out),
        "method": ("method", method),
        "model": ("model", model),
        "device": ("device", device),
        "references": ("reference", tuple(reference or ())),
        "darks": ("dark", tuple(dark or ())),
        "grid": ("grid", parse_grid(grid)),
        "pixel_nm": ("pixel_nm", pixel_nm),
        "save": ("save", split_parts(save)),
        "format": ("format", format),
        "overwrite": ("overwrite", overwrite),
        "force": ("force", force),
        "scheduler": ("scheduler", scheduler),
        "shard": ("shard", shard),
        "stitch": ("stitch", stitch),
        "joint": ("joint", joint),
        "combine": ("combine", combine),
        "i0": ("i0", i0),
        "write_positions": ("write_positions", write_positions),
    }
    named = {k: v for k, (name, v) in values.items() if on_command_line(ctx, name)}
    base = CorrectionConfig() if config is None else load_config(config)
    asked = base.replaced(**named)
    if save_config is not None:
        asked.write(save_config)
        typer.echo(f"options: {save_config}")
        return
    _check_given(asked)
    with Bars(quiet=as_json or not sys.stderr.isatty()) as bars:
        summary = run_correction(asked, bars.progress)
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        _say(summary)


def _check_given(asked: CorrectionConfig) -> None:
    """Refuse a command line without an input or an output, with the help to read."""
    from napari_txm_bgcorr.workflows import JOIN

    missing = "--output OUT" if asked.output is None else ""
    if not asked.inputs and asked.shard != JOIN:
        missing = "PATH"
    if missing:
        raise ConfigError(f"{missing} is missing; see txm-bgcorr correct --help")


def _say(summary: dict[str, Any]) -> None:
    """Tell what was corrected, a line an output."""
    if "fitted" in summary:
        typer.echo(
            f"solved for all shares: {summary['fitted']}"
            if summary["fitted"]
            else "nothing to solve for all shares: each fits for itself"
        )
    if "joined" in summary:
        typer.echo(f"complete: {summary['joined']}")
    if "stitched" in summary:
        typer.echo(f"stitched: {summary['stitched']['output']}")
    for done in summary["results"]:
        tiles = "1 tile" if done["tiles"] == 1 else f"{done['tiles']} tiles"
        part = "" if done["complete"] else "one shard of "
        typer.echo(f"{part}{tiles} corrected by {done['method']}: {done['output']}")
        if not done["complete"]:
            typer.echo("  this shard is done; the last of the others completes the output")
        for note in done["notes"]:
            typer.echo(f"  note: {note}")
