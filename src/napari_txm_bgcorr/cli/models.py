"""`txm-bgcorr models`: the models at hand, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_txm_bgcorr.errors import ConfigError

from .options import JsonFlag

__all__ = ["app"]

app = typer.Typer(
    help="List, show, rename, import, export and remove models.", no_args_is_help=True
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="A model's name.")]
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model's name, weights file or run folder.")
]


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """List all models: those that ship with the program, and your own."""
    from napari_txm_bgcorr.models import ModelRow, model_rows, models_folder

    rows = model_rows()
    if as_json:
        listed = [vars(row) | {"path": str(row.path)} for row in rows]
        typer.echo(json.dumps({"folder": str(models_folder()), "models": listed}))
        return

    def line(row: ModelRow) -> str:
        error = "" if row.error is None else f"{100 * row.error:.2f} %"
        whose = "shipped" if row.shipped else "own"
        facts = f"{row.network:<20} {row.date:<10}  {row.megabytes:>6.1f} MB  {error:>8}  "
        facts += row.references
        return f"{row.name:<24} {whose:<8} {row.fault or facts}"

    head = f"{'name':<24} {'':<8} {'network':<20} {'date':<10}  {'weights':>9}  {'error':>8}  "
    head += "carries references"
    typer.echo("\n".join(text.rstrip() for text in [head, *map(line, rows)]))
    typer.echo(f"your own are in {models_folder()}")


@app.command("show")
def show(model: Model, as_json: JsonFlag = False) -> None:
    """Show a model's card: what it is for, its range, figures and limits."""
    from napari_txm_bgcorr.models import carries, find_model, fits, without_places

    path, card = find_model(model)
    card = without_places(card)
    if as_json:
        typer.echo(json.dumps(card))
        return
    typer.echo(f"file          {path}")
    for key in ("network", "parameters", "date", "intended_use", "instrument", "licence", "data"):
        if card.get(key):
            typer.echo(f"{key:<14}{_text(card[key])}")
    for key, value in fits(card).items():
        typer.echo(f"{'for ' + key:<13} {_text(value)}")
    errors = card.get("metrics", {}).get("validation_error_sf") or {}
    for case, error in errors.items():
        typer.echo(f"{'error':<14}{case}: {100 * error:.2f} %")
    if isinstance(card.get("references"), dict):
        typer.echo(f"{'carries':<14}{carries(card)}")
    for limit in [*card.get("limits", []), card.get("notes")]:
        if limit:
            typer.echo(f"{'limit':<14}{limit}")
    typer.echo(f"{'sha256':<14}{card['sha256']}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items() if item)
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)


@app.command("rename")
def rename(
    name: Name, new: Annotated[str, typer.Argument(metavar="NEW", help="The new name.")]
) -> None:
    """Rename one of your models."""
    from napari_txm_bgcorr.models import rename_model

    typer.echo(f"{name} is now {new}: {rename_model(name, new)}")


@app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="A .safetensors file with its card, or a run folder."),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Its name here; else that of file or folder.")
    ] = None,
) -> None:
    """Check a model and copy it to your own, so that its name is enough."""
    from napari_txm_bgcorr.models import import_model

    path = import_model(source, name)
    typer.echo(f"{path.stem}: use it with --model {path.stem}")


@app.command("export")
def export(
    model: Model,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="OUT.onnx, OUT.zip (bioimage.io package) or OUT.safetensors."
        ),
    ],
    as_json: JsonFlag = False,
) -> None:
    """Write a model for another program; what was written is checked."""
    from napari_txm_bgcorr.models.export import export_model

    done = export_model(model, out)
    if as_json:
        typer.echo(json.dumps(done))
        return
    typer.echo(f"written: {done['file']}")
    for check in done.get("checked", []):
        height, width = check["size"]
        greatest = check["difference"]
        typer.echo(f"  {width} x {height} px: onnxruntime differs from torch by {greatest:.1e}")
    if "validator" in done:
        typer.echo(f"  bioimageio.spec: {done['validator']}")


@app.command("remove")
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete one of your models for good."""
    from napari_txm_bgcorr.models import remove_model

    if not yes and not typer.confirm(f"Delete {name} for good?"):
        raise ConfigError(f"{name}: kept")
    typer.echo(f"removed: {remove_model(name)}")
