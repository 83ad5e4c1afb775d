"""`txm-bgcorr watch`: correct new files as the microscope writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .correct import DARK_HELP, METHOD_HELP, REFERENCE_HELP, SAVE_HELP
from .options import Device, Grid, PixelNm, parse_grid, split_parts

__all__ = ["watch"]

INTERRUPTED = 130
SOME_FAILED = 1


def watch(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where the microscope writes; and below.")
    ],
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="Folder of the results.")
    ],
    method: Annotated[str, typer.Option("--method", metavar="NAME", help=METHOD_HELP)] = "auto",
    model: Annotated[str, typer.Option("--model", help="As in correct.")] = "default",
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
    format: Annotated[
        str, typer.Option("--format", metavar="NAME", help="omezarr, ometiff or tiff.")
    ] = "omezarr",
    grid: Grid = None,
    pixel_nm: PixelNm = None,
    pattern: Annotated[
        str | None,
        typer.Option(help="File names, e.g. '*.txrm'; default: images that are no references."),
    ] = None,
    folders: Annotated[
        bool, typer.Option("--folders", help="Sub-folders of tiles are one scan each.")
    ] = False,
    settle: Annotated[
        float, typer.Option(min=0.0, help="A file is whole when it stood still so long (s).")
    ] = 5.0,
    patience: Annotated[
        float, typer.Option(min=0.0, help="So long (s) a scan that lacks images is waited for.")
    ] = 600.0,
    once: Annotated[
        bool, typer.Option("--once", help="End when everything that is there is done.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a file, a line each.")
    ] = False,
) -> None:
    """Correct new images in FOLDER as they are written, until Ctrl-C.

    The model stays loaded. Files that are still being written wait; one that fails is tried
    again when it changes. Started again, it skips what is done.
    """
    from napari_txm_bgcorr.core import Progress
    from napari_txm_bgcorr.io import Watcher
    from napari_txm_bgcorr.workflows import CorrectionConfig, FolderCorrection, check_folders

    config = CorrectionConfig(
        method=method,
        model=model,
        device=device,
        references=tuple(reference or ()),
        darks=tuple(dark or ()),
        grid=parse_grid(grid),
        pixel_nm=pixel_nm,
        save=split_parts(save),
        format=format,
        overwrite=True,  # a file that changed takes the place of its earlier result
    )
    check_folders(folder, out)

    def tell(line: dict[str, Any]) -> None:
        _print(line, out, as_json)

    work = FolderCorrection(folder, out, config, tell, Progress(say=_waiting))
    watcher = Watcher(
        folder,
        pattern=pattern,
        settle_s=settle,
        patience_s=patience,
        ignore=[out, *config.references, *config.darks],
        whole_folders=folders,
        handled=work.handled(),
    )
    interval = min(1.0, max(0.05, settle / 2))
    try:
        work.loop(watcher, interval=interval, once=once)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if work.failed:
        raise typer.Exit(SOME_FAILED)


def _print(line: dict[str, Any], out: Path, as_json: bool) -> None:
    """Show the log's line of one file."""
    if as_json:
        typer.echo(json.dumps(line))
    elif line["status"] == "failed":
        typer.echo(f"{line['time'][11:19]} {line['error']}", err=True)
    else:
        tiles = "1 tile" if line["tiles"] == 1 else f"{line['tiles']} tiles"
        typer.echo(
            f"{line['time'][11:19]} {line['file']}: {tiles}, {line['latency_s']:.1f} s after "
            f"it was complete ({line['seconds']:.1f} s of work): {out / line['output']}"
        )


def _waiting(sentence: str) -> None:
    typer.echo(sentence, err=True)
