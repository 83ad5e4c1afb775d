"""Correction of scans: predict the background of every tile, divide, and write."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_txm_bgcorr.core import (
    SILENT,
    Progress,
    Scan,
    method_notes,
    peak_rss_mb,
    reference_notes,
)
from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.mosaic import registered

from .config import FIT, JOIN, CorrectionConfig, parse_shard
from .inputs import check_place, refuse_file_name, side_by_side, split_jobs
from .positions_table import write_positions
from .prepare import Shared, method_of, model_notes, open_scan
from .runners import LocalRunner, TileRunner
from .stitching.job import check_stitched_place, stitch_path, stitch_results, stitched_place

if TYPE_CHECKING:
    from napari_txm_bgcorr.io import OutputWriter

__all__ = ["correct", "correct_scans"]

STAGE = "correcting"


def correct(config: CorrectionConfig, progress: Progress = SILENT) -> dict[str, Any]:
    """Correct every input and say what was done.

    An interrupted run of the same options goes on where it stopped.

    Parameters
    ----------
    config : CorrectionConfig
        With inputs and an output.
    progress : Progress

    Returns
    -------
    dict
        JSON-ready: ``results``, one entry an output; ``seconds``; ``peak_rss_mb``.

    Raises
    ------
    ConfigError
        If there is no input or no output.
    TxmError
        If an input cannot be read or corrected, or an output not be written.
    """
    started = time.perf_counter()
    out = config.output
    if out is None:
        raise ConfigError("output: none; give --output OUT, the folder to make")
    refuse_file_name(out)
    if config.shard == JOIN:
        return _complete(out, config, progress)
    if not config.inputs:
        raise ConfigError("inputs: none; give raw files or folders of tiles")
    # Every input and place is looked at before the first is corrected: a slip costs no hour.
    shared: Shared = {}
    scans = [open_scan(path, config, shared) for path in config.inputs]
    jobs = split_jobs(scans, out, config.format)
    if config.shard == FIT:
        return _fit_only(jobs, config, progress)
    config, jobs = _own_share(config, jobs)
    # some may be done already
    again = config.overwrite or len(jobs) > 1 or config.shard is not None or config.stitch
    for group, target in jobs:
        check_place(group, target, config.parts, overwrite=again)
        if config.stitch:
            check_stitched_place(target, overwrite=config.overwrite)
    with _runner(config, out, progress) as runner:
        results = [
            correct_scans(group, runner, target, config, progress) for group, target in jobs
        ]
    if config.stitch:
        stitch_results(results, overwrite=config.overwrite, progress=progress)
    return {
        "results": results,
        "seconds": round(time.perf_counter() - started, 3),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }


Jobs = list[tuple[Sequence[Scan], Path]]


def _own_share(config: CorrectionConfig, jobs: Jobs) -> tuple[CorrectionConfig, Jobs]:
    """Select the outputs of this shard: every n-th one as a whole, made by one process."""
    shard = None if config.shard is None else parse_shard(config.shard)
    if shard is None or len(jobs) == 1:
        return config, jobs
    return config.replaced(shard=None), jobs[shard[0] - 1 :: shard[1]]


def _fit_only(jobs: Jobs, config: CorrectionConfig, progress: Progress) -> dict[str, Any]:
    """Solve for shares to come; several outputs are each made by one process, which solves."""
    from .cluster.sharding import SharedFit

    if len(jobs) > 1:
        return {"results": [], "fitted": None}
    (scans, out), *_ = jobs
    runner = SharedFit(method_of(config), out, config, progress)
    whole = scans[0] if len(scans) == 1 else side_by_side(scans)
    runner.fit(scans, whole)
    return {"results": [], "fitted": None if runner.place is None else str(runner.place.path)}


def _complete(out: Path, config: CorrectionConfig, progress: Progress) -> dict[str, Any]:
    """Complete an output that shares have made, and stitch it where asked."""
    from napari_txm_bgcorr.io.output import join_shards

    if config.stitch:
        check_stitched_place(out, overwrite=config.overwrite)
    summary: dict[str, Any] = {"results": [], "joined": str(join_shards(out))}
    if config.stitch:
        place, again = stitched_place(out), config.overwrite
        summary["stitched"] = stitch_path(out, place, overwrite=again, progress=progress)
    return summary


def correct_scans(
    scans: Sequence[Scan],
    runner: TileRunner,
    out: Path,
    config: CorrectionConfig,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Fit the method to each scan, then predict, divide and write tile by tile into one output.

    An interrupted run of the same job goes on where it stopped.
    """
    from napari_txm_bgcorr import io
    from napari_txm_bgcorr.io.output import remove_fits

    started = time.perf_counter()
    blind: list[str] = []
    complete = True
    unfit = model_notes(scans, config)
    for sentence in unfit:
        progress.say(f"note: {sentence}")
    whole = scans[0] if len(scans) == 1 else side_by_side(scans)
    described, provenance = runner.fit(scans, whole)
    others = [note for scan in scans[1:] for note in reference_notes(config.method, scan)]
    if others:  # the description is that of the first scan
        described["notes"] = list(dict.fromkeys([*method_notes(described), *others]))
        provenance["parameters"] = {**provenance["parameters"], "notes": described["notes"]}
    own = config.replaced(inputs=tuple(scan.source.path for scan in scans), output=out)
    provenance |= {"config": own.record(), "command": own.command()}
    whole = registered(whole, described)
    fitted = time.perf_counter()
    if not config.overwrite and io.finished(
        out, provenance, format=config.format, save=config.parts
    ):
        resumed = len(whole)  # one of several outputs, made before the others were interrupted
        if config.shard is not None:
            remove_fits(out)
    else:
        with _open(out, whole, provenance, config) as writer:
            resumed = len(writer.done)
            blind = _fill(scans, whole, runner, writer, progress)
            complete = writer.close_complete() is not None
    notes = [n for scan in (*scans, whole) for n in scan.notes]
    notes += method_notes(described) + runner.notes
    if config.write_positions and complete:
        notes.append(write_positions(out, whole, described, config))
    return {
        "inputs": [str(scan.source.path) for scan in scans],
        "output": str(out),
        "kind": scans[0].kind,
        "tiles": len(whole),
        "resumed": resumed,
        "complete": complete,
        "method": config.method,
        "parameters": described,
        "device": str(described.get("device", "cpu")),
        "fit_seconds": round(fitted - started, 3),
        "seconds": round(time.perf_counter() - started, 3),
        "notes": list(dict.fromkeys(notes)) + unfit + _blind(blind),
    }


def _open(
    out: Path, whole: Scan, provenance: dict[str, Any], config: CorrectionConfig
) -> OutputWriter:
    """Open the output, alone or as one shard of it."""
    from napari_txm_bgcorr import io

    shard = None if config.shard is None else parse_shard(config.shard)
    if shard is not None:
        from napari_txm_bgcorr.io.output import open_shard

        return open_shard(out, whole, provenance, shard=shard, save=config.parts)
    return io.open_output(
        out, config.format, whole, provenance, save=config.parts, overwrite=config.overwrite
    )


def _fill(
    scans: Sequence[Scan],
    whole: Scan,
    runner: TileRunner,
    writer: OutputWriter,
    progress: Progress,
) -> list[str]:
    """Correct what is to do; names of tiles without a valid pixel."""
    blind: list[str] = []
    done = len(writer.done)
    total = done + len(writer.todo)
    progress.report(STAGE, done, total)
    for index, seen in runner.run(scans, writer):
        blind += [] if seen else [whole.names[index]]
        done += 1
        progress.step(STAGE, done, total)
    return blind


def _blind(names: Sequence[str]) -> list[str]:
    """Tell of tiles without one pixel to trust."""
    if not names:
        return []
    which = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return [f"no valid pixel in {len(names)} tiles ({which}): dark, saturated or not finite"]


@contextmanager
def _runner(config: CorrectionConfig, out: Path, progress: Progress) -> Iterator[TileRunner]:
    if config.shard is not None:  # there is one output
        from .cluster.sharding import SharedFit

        yield SharedFit(method_of(config), out, config, progress)
    elif config.scheduler is None:
        yield LocalRunner(method_of(config), progress)
    else:
        from .cluster.distributed import connect

        with connect(config, progress) as runner:
            yield runner
