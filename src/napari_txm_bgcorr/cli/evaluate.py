"""`txm-bgcorr evaluate`: the quality table of all methods."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tqdm import tqdm

from napari_txm_bgcorr.errors import ConfigError

from .options import Device, JsonFlag

if TYPE_CHECKING:
    from napari_txm_bgcorr.evaluation.real_suite import Row

    from .real_suite import SuiteOptions

__all__ = ["evaluate"]

DATA = "TXM_BGCORR_DATA"
SUITE_HELP = (
    "simulated; real: scans with references, named by a manifest; or a folder of tiles "
    "without truth."
)
METHOD_HELP = (
    "Only these methods, separated by commas or repeated; default all that apply. With --suite "
    "real each may have options of correct, for example 'auto --no-joint'."
)
EXTERNAL_HELP = (
    "Real suite: judge the backgrounds FOLDER/<case>/<tile>.tif of another program, too; may be "
    "repeated."
)
MANIFEST_HELP = "Real suite: its cases; may be repeated. Default: DATA/real_cases.json."
OUTPUT_HELP = (
    "Real suite: folder for results.csv, results.json, results.md and pictures of every case: "
    "raw, background, corrected, difference from the truth, and the stitched mosaic."
)
MARKDOWN_HELP = (
    "Real suite: write the table into this page, between its lines <!-- real suite: begin --> "
    "and <!-- real suite: end -->, or into a new file."
)


def evaluate(
    suite: Annotated[str, typer.Option("--suite", help=SUITE_HELP)] = "simulated",
    method: Annotated[
        list[str] | None, typer.Option("--method", "--methods", help=METHOD_HELP)
    ] = None,
    sessions: Annotated[int, typer.Option("--sessions", help="Simulated sessions.")] = 20,
    size: Annotated[int, typer.Option("--size", help="Tile size (px).")] = 256,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the sessions.")] = 0,
    model: Annotated[str, typer.Option("--model", help="Model of the learned methods.")] = (
        "default"
    ),
    device: Device = "auto",
    joint: Annotated[
        bool | None,
        typer.Option(
            "--joint/--no-joint",
            help="Every method without and with the joint stage; or none with it.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", envvar=DATA, help="Real suite: folder of the scans."),
    ] = None,
    manifest: Annotated[
        list[Path] | None, typer.Option("--manifest", metavar="FILE", help=MANIFEST_HELP)
    ] = None,
    only: Annotated[
        str, typer.Option("--only", help="Real suite: cases whose names have this text.")
    ] = "",
    external: Annotated[
        list[str] | None,
        typer.Option("--external", metavar="NAME=FOLDER", help=EXTERNAL_HELP),
    ] = None,
    fine_tune: Annotated[
        bool,
        typer.Option("--fine-tune", help="Real suite: also cases that train first (minutes)."),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help=OUTPUT_HELP)
    ] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help=MARKDOWN_HELP)] = None,
    as_json: JsonFlag = False,
) -> None:
    """Judge background methods on simulated sessions, or on real scans with or without truth."""
    methods = [name.strip() for words in method or () for name in words.split(",")]
    if suite == "real":
        from napari_txm_bgcorr.evaluation.real_suite import MANIFEST

        from .real_suite import SuiteOptions

        folder = _data_folder(data)
        options = SuiteOptions(
            data=folder,
            manifests=tuple(manifest or [folder / MANIFEST]),
            only=only,
            methods=tuple(methods),
            external=dict(_external(text) for text in external or ()),
            fine_tune=fine_tune,
            model=model,
            device=device,
            pictures=None if output is None else output / "pictures",
        )
        _real(options, output, markdown, as_json=as_json)
        return
    from napari_txm_bgcorr.evaluation import evaluate as suite_module

    if suite == "simulated":
        if sessions < 1:
            raise ConfigError(f"--sessions {sessions}: give at least 1")
        hidden = as_json or not sys.stderr.isatty()
        with tqdm(unit="session", total=sessions, disable=hidden) as bar:
            rows = suite_module.evaluate(
                methods or None, sessions=sessions, size=size, seed=seed, model=model,
                device=device, joint=joint, progress=bar.update,
            )  # fmt: skip
    else:
        from napari_txm_bgcorr import io

        scan = io.read(Path(suite))
        rows = suite_module.evaluate_real(scan, methods or None, model=model, device=device)
    typer.echo(json.dumps(rows) if as_json else suite_module.format_table(rows))


def _data_folder(data: Path | None) -> Path:
    if data is None:
        raise ConfigError(f"--data: missing; name the folder of the real scans, or set {DATA}")
    if not data.is_dir():
        raise ConfigError(f"--data {data}: no such folder; check the path, or {DATA}")
    return data


def _external(text: str) -> tuple[str, Path]:
    name, sign, folder = text.partition("=")
    if not sign or not name or not Path(folder).is_dir():
        raise ConfigError(f"--external {text}: give NAME=FOLDER with a folder that exists")
    return name, Path(folder)


def _real(
    options: SuiteOptions, output: Path | None, markdown: Path | None, *, as_json: bool
) -> None:
    """Run the real suite, show its rows as they come, and write what was asked for."""
    from napari_txm_bgcorr.evaluation import real_suite as suite

    from .real_suite import run_suite

    _page(markdown, [])  # a slip costs no minutes
    if not as_json:
        typer.echo(suite.table_head())

    def show(rows: list[Row]) -> None:
        if not as_json:
            typer.echo(suite.table_text(rows))

    rows = run_suite(options, show)
    files: dict[Path, str] = {}
    if output is not None:
        files[output / "results.csv"] = suite.csv_text(rows)
        files[output / "results.json"] = json.dumps(suite.json_rows(rows), indent=1) + "\n"
        files[output / "results.md"] = suite.markdown_text(rows) + "\n"
    if markdown is not None:
        files[markdown] = _page(markdown, rows)
    _write(files)
    if as_json:
        typer.echo(json.dumps(suite.json_rows(rows)))
        return
    typer.echo(f"\n{suite.summary_text(rows)}\n{suite.harm_text(rows)}")
    for path in files:
        typer.echo(f"written: {path}")


def _page(path: Path | None, rows: list[Row]) -> str:
    """Page with the table in its place."""
    from napari_txm_bgcorr.evaluation.real_suite import markdown_text, place_between_marks

    old = "" if path is None or not path.exists() else path.read_text("utf-8")
    try:
        return place_between_marks(old, markdown_text(rows))
    except ConfigError as error:
        raise ConfigError(f"--markdown {path}: {error}") from error


def _write(files: dict[Path, str]) -> None:
    from napari_txm_bgcorr.io import writing

    for path, text in files.items():
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
