"""`txm-bgcorr evaluate --suite real`: every method on real scans with known backgrounds."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer
from numpy.typing import NDArray

from napari_txm_bgcorr.errors import ConfigError, MethodError, ReadError, TxmError

from . import correct, train

if TYPE_CHECKING:
    from napari_txm_bgcorr.evaluation.real_suite import FineTune, RealCase, Row, Scene

__all__ = ["COMPARED", "SuiteOptions", "corrected_backgrounds", "read_scene", "run_suite"]

COMPARED = (
    "auto", "captured", "normalise", "tile-median", "smooth", "envelope", "eigen-flats",
)  # fmt: skip
"""Judged on every case where they apply, besides the methods that a case names."""

NORMALISE = "normalise"
Backgrounds = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class SuiteOptions:
    """Options of the command.

    Attributes
    ----------
    data : Path
        Folder of the scans.
    manifests : tuple of Path
    only : str
        Part of the names of the cases to run.
    methods : tuple of str
        Methods in place of those of the manifest and `COMPARED`; each with options of ``correct``.
    external : mapping of str to Path
        Name of a method to a folder of its backgrounds, ``<case>/<tile>.tif``.
    fine_tune : bool
        Also run the cases that fine-tune the model first.
    model, device : str
        Model and device of the learned methods.
    pictures : Path or None
        Folder for one PNG per case and method.
    """

    data: Path
    manifests: tuple[Path, ...]
    only: str = ""
    methods: tuple[str, ...] = ()
    external: Mapping[str, Path] = field(default_factory=dict)
    fine_tune: bool = False
    model: str = "default"
    device: str = "auto"
    pictures: Path | None = None


def run_suite(
    options: SuiteOptions, show: Callable[[list[Row]], None] = lambda rows: None
) -> list[Row]:
    """Judge the methods on every case.

    Parameters
    ----------
    options : SuiteOptions
    show : callable
        Called with the rows of each case as soon as they are there.

    Raises
    ------
    ConfigError, ReadError
        If the manifest or an image that it names cannot be used. A method that fails is a
        row that says why.
    """
    from napari_txm_bgcorr.evaluation.real_suite import load_manifest

    cases = [c for c in load_manifest(*options.manifests) if options.only in c.name]
    if not options.fine_tune:
        cases = [case for case in cases if case.fine_tune is None]
    if not cases:
        where = ", ".join(map(str, options.manifests))
        raise ConfigError(
            f"--only {options.only!r}: no such case in {where}; give another text, or "
            "--fine-tune for the cases that train first"
        )
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="txm-bgcorr-") as folder:
        runs: dict[str, Path] = {}
        for case in cases:
            model = options.model
            if case.fine_tune is not None:
                model = str(_tuned(case.fine_tune, options, Path(folder), runs))
            found = list(_judge_case(case, options, model))
            show(found)
            rows += found
    return rows


def _judge_case(case: RealCase, options: SuiteOptions, model: str) -> Iterator[Row]:
    """Rows of one case: methods that apply, then external ones."""
    from napari_txm_bgcorr.evaluation.real_suite import Row

    scene = read_scene(case, options.data)
    named = options.methods or case.methods
    more = () if options.methods else [m for m in COMPARED if m not in named]
    ordered = sorted((*named, *more), key=lambda m: COMPARED.index(m) if m in COMPARED else 99)
    for method in (*ordered, *options.external):
        row = {"case": case.name, "method": method, "check": case.check, "by": case.by}
        try:
            notes: tuple[str, ...] = ()
            if method in options.external:
                folder = options.external[method] / case.slug
                backgrounds = _read_backgrounds(folder, scene.raws)
            else:
                backgrounds, notes = corrected_backgrounds(
                    case, options.data, method, scene.raws, model, options.device
                )
        except TxmError as error:
            wanted = method in named or method == COMPARED[0]
            if not wanted and isinstance(error, MethodError | ReadError):
                continue  # it does not apply
            yield Row(**row, failed=" ".join(str(error).split()))
            continue
        yield Row(**row, figures=scene.judge(backgrounds), notes=notes)
        if options.pictures is not None:
            _draw(options.pictures / case.slug, method, scene, backgrounds)


def read_scene(case: RealCase, data: Path) -> Scene:
    """Read the raw tiles of a case and what is known of them.

    Raises
    ------
    ReadError
        If an image or the table of positions cannot be read.
    ConfigError
        If images differ in size, or a tile has no place.
    """
    from napari_txm_bgcorr.evaluation.real_suite import Scene, area_mask, mean_truth

    tiles = _tiles(case, data)
    raws = {Path(tile).name: image for tile, image in tiles.items()}
    truth = mean_truth([image for path in case.truth for image in _images(data / path)])
    if len(raws) < len(tiles):
        raise ConfigError(f"case {case.name!r}: two tiles have one name; rename a file")
    odd = next((name for name, raw in raws.items() if raw.shape != truth.shape), None)
    if odd is not None:
        raise ConfigError(
            f"case {case.name!r}: tile {odd} is {raws[odd].shape}, the truth {truth.shape} "
            "(Y, X) px; give references of the same binning"
        )
    areas = {name: case.area_of(name) for name in raws}
    return Scene(
        raws=raws,
        truth=truth,
        judged=frozenset(Path(tile).name for tile in tiles if not case.is_truth(tile)),
        free={n: area_mask(area, truth.shape) for n, area in areas.items() if area is not None},
        places=None if case.positions is None else _places(data / case.positions, raws),
    )


def _tiles(case: RealCase, data: Path) -> dict[str, NDArray[Any]]:
    """Raw tiles by path without suffix: the listed files, else all tiles of the input."""
    from napari_txm_bgcorr import io as formats

    if case.tiles:
        return {str(Path(tile).with_suffix("")): _images(data / tile)[0] for tile in case.tiles}
    scan = formats.read(data / case.input)
    folder = Path(case.input)
    folder = folder if (data / folder).is_dir() else folder.parent
    return {str(folder / n): np.asarray(scan.tiles[i]) for i, n in enumerate(scan.names)}


def _images(path: Path) -> list[NDArray[Any]]:
    from napari_txm_bgcorr import io as formats

    tiles = formats.read(path).tiles
    return [np.asarray(tiles[i]) for i in range(tiles.shape[0])]


def _places(table: Path, raws: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    from napari_txm_bgcorr.io.readers import parse_tile_configuration

    rows = {Path(name).stem: place for name, place in parse_tile_configuration(table).items()}
    missing = next((name for name in raws if name not in rows), None)
    if missing is not None:
        raise ConfigError(f"{table}: tile {missing} is not in it; give the table of these tiles")
    return {name: rows[name] for name in raws}


def corrected_backgrounds(
    case: RealCase,
    data: Path,
    method: str,
    names: Sequence[str] | Mapping[str, Any],
    model: str = "default",
    device: str = "auto",
) -> tuple[Backgrounds, tuple[str, ...]]:
    """Backgrounds of a case as ``txm-bgcorr correct`` saves them, and its notes.

    Parameters
    ----------
    case : RealCase
    data : Path
    method : str
        Row of the method table with further options, or ``normalise``.
    names : sequence of str
        Tiles wanted.
    model, device : str
        Of the learned methods.

    Raises
    ------
    TxmError
        As ``correct``.
    """
    from napari_txm_bgcorr.backgrounds import LEARNED

    name, *more = method.split()
    learned = name in LEARNED
    references, darks = (_given(case, data, role, learned) for role in ("references", "darks"))
    if name == NORMALISE:
        return _normalised(data / case.input, references, darks, names), ()
    words: list[object] = [data / case.input, "--method", name, *more, *case.args]
    words += [word for path in references for word in ("--reference", path)]
    words += [word for path in darks for word in ("--dark", path)]
    words += ["--device", device, *(("--model", model) if learned else ())]
    words += ["--save", "background", "--format", "tiff", "--json"]
    with tempfile.TemporaryDirectory(prefix="txm-bgcorr-") as folder:
        out = Path(folder) / "out"
        notes = _correct([*map(str, words), "-o", str(out)])
        return _read_backgrounds(out / "background", names), notes


def _given(case: RealCase, data: Path, role: str, learned: bool) -> tuple[Path, ...]:
    """References or darks; a fine-tuned model brings its own, the other methods get them."""
    paths: tuple[str, ...] = getattr(case, role)
    if case.fine_tune is not None and not learned:
        paths += getattr(case.fine_tune, role)
    return tuple(data / path for path in paths)


def _correct(words: list[str]) -> tuple[str, ...]:
    """Run the command ``correct`` in this process; returns its notes."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command("correct")(correct.correct)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            app(words, standalone_mode=False)
    except TxmError:
        raise
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own: a wrong option or value
            raise
        raise ConfigError(f"{error.format_message().rstrip('.')}; see correct --help") from error
    (result,) = json.loads(said.getvalue())["results"]
    return tuple(result["notes"])


def _read_backgrounds(folder: Path, names: Sequence[str] | Mapping[str, Any]) -> Backgrounds:
    """Images of a folder by tile; a file may have more to its name than the tile."""
    files = {path.stem: path for path in sorted(folder.glob("*.tif*"))}
    found: Backgrounds = {}
    for name in names:
        path = files.get(name) or next((p for n, p in files.items() if n.startswith(name)), None)
        if path is None:
            raise ReadError(f"{folder}: no background of tile {name}; write {name}.tif")
        found[name] = _images(path)[0]
    return found


def _normalised(
    path: Path,
    references: tuple[Path, ...],
    darks: tuple[Path, ...],
    names: Sequence[str] | Mapping[str, Any],
) -> Backgrounds:
    """Plain mean of all references, as ``(raw - dark) / (flat - dark)`` needs it."""
    from napari_txm_bgcorr.workflows import CorrectionConfig, open_scan

    scan = open_scan(path, CorrectionConfig(references=references, darks=darks))
    if scan.flats is None:
        raise MethodError(f"{path}: no references; {NORMALISE} needs 1 or more")
    mean = np.mean(np.asarray(scan.flats[:], np.float64), axis=0).astype(np.float32)
    return dict.fromkeys(names, mean)


def _tuned(wanted: FineTune, options: SuiteOptions, folder: Path, runs: dict[str, Path]) -> Path:
    """Run folder of a fine-tuned model; trained once for all cases that ask the same."""
    key = wanted.model_dump_json()
    if key not in runs:
        runs[key] = folder / f"run-{len(runs)}"
        with contextlib.redirect_stdout(io.StringIO()):
            train.train(
                "fine-tune",
                run=runs[key],
                references=[str(options.data / path) for path in wanted.references],
                darks=[str(options.data / path) for path in wanted.darks] or None,
                overrides=[f"minutes={wanted.minutes:g}"],
                device=options.device,
            )
    return runs[key]


def _draw(folder: Path, method: str, scene: Scene, backgrounds: Backgrounds) -> None:
    from napari_txm_bgcorr.io import write_pictures

    name = "".join(c if c.isalnum() else "-" for c in method)
    write_pictures(folder, name, scene.raws, backgrounds, scene.truth, scene.lit, scene.places)
