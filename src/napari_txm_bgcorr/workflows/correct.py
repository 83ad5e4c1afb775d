"""The work of `txm-bgcorr correct`: predict the background of every tile, divide, and write."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer
from tqdm import tqdm

from napari_txm_bgcorr.cli.progress_bars import FitBar
from napari_txm_bgcorr.cli.stitch import (
    check_stitched_place,
    stitch_path,
    stitch_results,
    stitched_place,
)
from napari_txm_bgcorr.core.correction import BackgroundMethod, TileResult, correct_tiles
from napari_txm_bgcorr.core.own_references import method_notes, reference_notes
from napari_txm_bgcorr.core.progress import fit_method
from napari_txm_bgcorr.core.provenance import make_provenance, refuse_if_corrected
from napari_txm_bgcorr.core.references import References
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.mosaic.assembly import registered

from .config import CorrectOptions
from .inputs import check_place, refuse_file_name, side_by_side, split_jobs
from .positions_table import write_positions
from .resources import peak_rss_mb
from .shards import JOIN, join, parse_shard

if TYPE_CHECKING:
    from napari_txm_bgcorr.io import OutputWriter

__all__ = [
    "CorrectOptions",
    "Here",
    "Runner",
    "correct_paths",
    "correct_scans",
    "method_of",
    "prepare",
    "results_of",
]

Shared = dict[tuple[int, ...], dict[str, References]]


class Runner(Protocol):
    """Where the tiles are corrected: in this process, or in others."""

    def fit(self, scans: Sequence[Scan], whole: Scan) -> tuple[dict[str, Any], dict[str, Any]]:
        """Fit the method to the first scan: its description, and the provenance of all."""

    def run(self, scans: Sequence[Scan], writer: OutputWriter) -> Iterator[tuple[int, bool]]:
        """Correct and write the tiles in ``writer.todo``: index, and whether a pixel is valid."""


class Here:
    """Corrects in this process; the model stays on the device from scan to scan."""

    def __init__(self, method: BackgroundMethod, *, quiet: bool = True) -> None:
        self.method, self.quiet = method, quiet

    def fit(self, scans: Sequence[Scan], whole: Scan) -> tuple[dict[str, Any], dict[str, Any]]:
        """Fit the method to the first scan; see `Runner`."""
        with FitBar(self.quiet) as bar:
            described = fit_method(self.method, scans[0], bar.watch).describe()
        device = str(described.get("device", "cpu"))
        return described, make_provenance(whole, self.method, device).to_dict()

    def run(self, scans: Sequence[Scan], writer: OutputWriter) -> Iterator[tuple[int, bool]]:
        """Correct and write tile by tile; see `Runner`."""
        # a single scan was fitted just now
        fit = self.method.fit if len(scans) > 1 else lambda scan: self.method
        with_sd = "uncertainty" in writer.save
        for result in results_of(scans, fit, writer.todo, uncertainty=with_sd):
            writer.write(result)
            yield result.index, bool(result.valid.any())


def correct_paths(paths: Sequence[Path], out: Path, options: CorrectOptions) -> dict[str, Any]:
    """Correct each path and say what was done, as a JSON-ready summary."""
    started = time.perf_counter()
    refuse_file_name(out)
    shard = None if options.shard is None else parse_shard(options.shard)
    if options.shard == JOIN:
        return _complete(out, options)
    # Every input and place is looked at before the first is corrected: a slip costs no hour.
    shared: Shared = {}
    scans = [prepare(path, options, shared) for path in paths]
    jobs = split_jobs(scans, out, options.format)
    # some may be done already
    again = options.overwrite or len(jobs) > 1 or shard is not None or options.stitch
    if shard is not None and len(jobs) > 1:  # whole outputs by turn, each made by one process
        jobs = jobs[shard[0] - 1 :: shard[1]]
        options = replace(options, shard=None)
    for group, target in jobs:
        check_place(group, target, options.save, overwrite=again)
        if options.stitch:
            check_stitched_place(target, overwrite=options.overwrite)
    with _runner(options, out) as runner:
        results = [correct_scans(group, runner, target, options) for group, target in jobs]
    if options.stitch:
        stitch_results(results, overwrite=options.overwrite, quiet=options.quiet)
    return {
        "results": results,
        "seconds": round(time.perf_counter() - started, 3),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }


def _complete(out: Path, options: CorrectOptions) -> dict[str, Any]:
    """Complete an output that shares have made, and stitch it where asked."""
    if options.stitch:
        check_stitched_place(out, overwrite=options.overwrite)
    summary = join(out)
    if options.stitch:
        place, again = stitched_place(out), options.overwrite
        summary["stitched"] = stitch_path(out, place, overwrite=again, quiet=options.quiet)
    return summary


def prepare(path: Path, options: CorrectOptions, shared: Shared | None = None) -> Scan:
    """Read a path and attach the user's references and darks to it.

    Parameters
    ----------
    path : Path
    options : CorrectOptions
    shared : dict, optional
        References and darks by size of tile, read for one path and used for the next; not darks
        from behind the aperture, which are each scan's own.

    Raises
    ------
    ReadError
        If the path or a reference cannot be read.
    AlreadyCorrectedError
        If the path is itself a corrected result and `force` is not set.
    """
    from napari_txm_bgcorr import io

    scan = io.read(path, grid=options.grid, pixel_nm=options.pixel_nm)
    refuse_if_corrected(scan, force=options.force)
    shared = {} if shared is None else shared
    size = tuple(scan.tiles.shape[1:])
    if size not in shared:
        given: dict[str, References] = {}
        shared[size] = given
        if options.references:
            given["flats"] = io.read_references(options.references, like=scan)
        if options.darks and not io.from_aperture(options.darks):
            given["darks"] = io.read_references(options.darks, like=scan, role="darks")
    if "flats" in shared[size]:
        scan = shared[size]["flats"].attach(scan)
    darks = shared[size].get("darks")
    if io.from_aperture(options.darks):
        darks = io.read_references(options.darks, like=scan, role="darks")
    if options.combine == "mean":
        scan = replace(scan, darks_combined="mean")
    return scan if darks is None else replace(scan, darks=darks.images)


def correct_scans(
    scans: Sequence[Scan], runner: Runner, out: Path, options: CorrectOptions
) -> dict[str, Any]:
    """Fit the method to each scan, then predict, divide and write tile by tile into one output.

    An interrupted run of the same job goes on where it stopped.
    """
    from napari_txm_bgcorr import io
    from napari_txm_bgcorr.io.output.fit_file import remove_fits

    started = time.perf_counter()
    blind: list[str] = []
    complete = True
    unfit = _unfit(scans, options)
    whole = scans[0] if len(scans) == 1 else side_by_side(scans)
    described, provenance = runner.fit(scans, whole)
    others = [note for scan in scans[1:] for note in reference_notes(options.method, scan)]
    if others:  # the description is that of the first scan
        described["notes"] = list(dict.fromkeys([*method_notes(described), *others]))
        provenance["parameters"] = {**provenance["parameters"], "notes": described["notes"]}
    whole = registered(whole, described)
    fitted = time.perf_counter()
    if not options.overwrite and io.finished(
        out, provenance, format=options.format, save=options.save
    ):
        resumed = len(whole)  # one of several outputs, made before the others were interrupted
        if options.shard is not None:
            remove_fits(out)
    else:
        with _open(out, whole, provenance, options) as writer:
            resumed = len(writer.done)
            blind = _fill(scans, whole, runner, writer, quiet=options.quiet)
            complete = writer.close_complete() is not None
    notes = [n for scan in (*scans, whole) for n in scan.notes]
    notes += method_notes(described)
    if options.write_positions and complete:
        notes.append(write_positions(out, whole, described, options))
    return {
        "inputs": [str(scan.source.path) for scan in scans],
        "output": str(out),
        "kind": scans[0].kind,
        "tiles": len(whole),
        "resumed": resumed,
        "complete": complete,
        "method": options.method,
        "parameters": described,
        "device": str(described.get("device", "cpu")),
        "fit_seconds": round(fitted - started, 3),
        "seconds": round(time.perf_counter() - started, 3),
        "notes": list(dict.fromkeys(notes)) + unfit + _blind(blind),
    }


def _open(
    out: Path, whole: Scan, provenance: dict[str, Any], options: CorrectOptions
) -> OutputWriter:
    """Open the output, alone or as one shard of it."""
    from napari_txm_bgcorr import io

    shard = None if options.shard is None else parse_shard(options.shard)
    if shard is not None:
        from napari_txm_bgcorr.io.output.shared_store import open_shard

        return open_shard(out, whole, provenance, shard=shard, save=options.save)
    return io.open_output(
        out, options.format, whole, provenance, save=options.save, overwrite=options.overwrite
    )


def _fill(
    scans: Sequence[Scan], whole: Scan, runner: Runner, writer: OutputWriter, *, quiet: bool
) -> list[str]:
    """Correct what is to do, with a progress bar; names of tiles without a valid pixel."""
    blind: list[str] = []
    todo, resumed = len(writer.todo), len(writer.done)
    with tqdm(total=resumed + todo, initial=resumed, unit="tile", disable=quiet) as bar:
        for index, seen in runner.run(scans, writer):
            blind += [] if seen else [whole.names[index]]
            bar.update()
    return blind


def _unfit(scans: Sequence[Scan], options: CorrectOptions) -> list[str]:
    """What in the scans is outside the model's card, said before it is used."""
    from napari_txm_bgcorr.backgrounds.registry import LEARNED

    if options.method not in LEARNED:
        return []
    from napari_txm_bgcorr.models.checkpoint import read_card, resolve_model
    from napari_txm_bgcorr.models.scope import fitness

    card, name = read_card(resolve_model(options.model)), f"model {Path(options.model).name}"
    said = list(dict.fromkeys(s for scan in scans for s in fitness(card, scan, name)))
    if not options.quiet:
        for sentence in said:
            typer.echo(f"note: {sentence}", err=True)
    return said


def _blind(names: Sequence[str]) -> list[str]:
    """Tell of tiles without one pixel to trust."""
    if not names:
        return []
    which = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return [f"no valid pixel in {len(names)} tiles ({which}): dark, saturated or not finite"]


def results_of(
    scans: Sequence[Scan],
    fit: Callable[[Scan], BackgroundMethod],
    wanted: Sequence[int],
    workers: int | None = None,
    uncertainty: bool = False,
) -> Iterator[TileResult]:
    """Correct the wanted tiles of scans that share one output.

    Parameters
    ----------
    scans : sequence of Scan
    fit : callable
        `fit(scan)` gives the method fitted to each scan in turn.
    wanted : sequence of int
        Places in the output, where the scans' tiles follow one another.
    workers : int or None
        Threads; see `correct_tiles`.
    uncertainty : bool
        Also that of each background.
    """
    chosen, offset = frozenset(wanted), 0
    for scan in scans:
        todo = [i for i in range(len(scan)) if i + offset in chosen]
        if todo:
            for result in correct_tiles(
                scan, fit(scan), indices=todo, workers=workers, uncertainty=uncertainty
            ):
                yield replace(result, index=result.index + offset)
        offset += len(scan)


def _runner(options: CorrectOptions, out: Path) -> AbstractContextManager[Runner]:
    if options.shard is not None:  # there is one output
        from .sharding import SharedFit

        return nullcontext(SharedFit(method_of(options), out, options))
    if options.scheduler is None:
        return nullcontext(Here(method_of(options), quiet=options.quiet))
    from .distributed import connect

    return connect(options)


def method_of(options: CorrectOptions) -> BackgroundMethod:
    """Make the method that was asked for, not yet fitted."""
    from napari_txm_bgcorr.backgrounds.registry import LEARNED, make_method

    learned = options.method in LEARNED
    given = {"model": options.model, "device": options.device} if learned else {}
    if options.combine is not None:
        given["combine"] = options.combine
    return make_method(options.method, joint=options.joint, i0=options.i0, **given)
