"""How far many workers help: a simulation of mosaics on 1 to 64 workers and one shared disk.

``OMP_NUM_THREADS=1 python benchmarks/scaling.py --measure`` takes the CPU time of the stages of
one tile and prints them as options; without it, the tables of ``docs/how-to/cluster.md`` are
printed, for the costs given as options. Simulated are: the disk, which serves one request after
the other at its full rate and each worker at no more than its link's rate; a worker, which
reads, predicts and divides one group of 8 tiles while it writes the group before; the start of
each process, the hash over each mosaic and its fit; the hand-out of tasks by the scheduler, one
after the other; workers that differ by a few per cent. What it leaves out: caches, failures,
other users.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import count as count_up
from pathlib import Path

import numpy as np

GROUP = 8  # tiles, as in the program


@dataclass(frozen=True)
class Costs:
    """What one tile costs one worker, and what all share."""

    size: int = 1024  # px a side
    tiles: int = 961
    predict_ms: float = 5.0  # network and resampling, on the device; a guess for a GPU
    divide_ms: float = 19.0  # division, on one core
    encode_ms: float = 24.0  # compressing raw, background and corrected
    written: float = 0.77  # of the plain bytes, after compression
    start_s: float = 12.0  # Python, torch, the model
    fit_tiles: int = 961  # read and predicted once more: all by the joint stage, else 64
    solve_s: float = 41.0  # registration and joint solution of a mosaic, one core
    link_mbps: float = 1000.0  # MB/s, of one worker
    disk_mbps: float = 2000.0  # MB/s, of the storage for all
    hash_mbps: float = 1200.0  # MB/s, SHA-256 of the raw files on one core
    task_ms: float = 3.0  # of the scheduler, which hands out one task after the other
    threads: int = 1  # that decode and divide in one worker; with a GPU, one
    spread: float = 0.05  # how much workers differ

    @property
    def read_mb(self) -> float:
        """Raw bytes of a tile."""
        return 2 * self.size**2 / 1e6

    @property
    def write_mb(self) -> float:
        """Raw, background and corrected of a tile, compressed."""
        return 10 * self.size**2 * self.written / 1e6


class Loop:
    """Events in order of time; a process is a generator that yields when to go on."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Process]] = []
        self._number = count_up()

    def spawn(self, process: Process, at: float | None = None) -> None:
        """Go on with a process at a time, or now."""
        time_ = self.now if at is None else max(at, self.now)
        heapq.heappush(self._events, (time_, next(self._number), process))

    def run(self) -> None:
        """Until nothing is left to happen."""
        while self._events:
            self.now, _, process = heapq.heappop(self._events)
            for wish in process:
                if isinstance(wish, Signal):
                    if wish.given:
                        continue
                    wish.waiting.append(process)
                else:
                    self.spawn(process, wish)
                break


@dataclass
class Signal:
    """Something that processes wait for."""

    given: bool = False
    waiting: list[Process] = field(default_factory=list)

    def give(self, loop: Loop) -> None:
        """Wake those who wait."""
        self.given = True
        for process in self.waiting:
            loop.spawn(process)


Process = Iterator[float | Signal]


class Disk:
    """One queue: the total rate is shared, one worker gets no more than its link."""

    def __init__(self, costs: Costs) -> None:
        self._costs, self._free, self.busy = costs, 0.0, 0.0

    def moved(self, now: float, megabytes: float) -> float:
        """When a request made now is served."""
        needs = megabytes / self._costs.disk_mbps
        self._free = max(self._free, now) + needs
        self.busy += needs
        return max(self._free, now + megabytes / self._costs.link_mbps)


@dataclass
class Worker:
    """Reads, predicts and divides one group while it writes the group before."""

    speed: float
    end: float = 0.0
    useful: float = 0.0  # s of device and cores
    serial: float = 0.0  # s of hashes and fits


@dataclass(frozen=True)
class Outcome:
    """What a simulation tells."""

    hours: float
    disk: float  # shares of the time
    scheduler: float
    tail: float
    serial: float
    worker: float

    @property
    def limit(self) -> str:
        """What to change first."""
        shares = {
            "disk": self.disk, "scheduler": self.scheduler, "tail": self.tail * 4,
            "hash and fit": self.serial, "workers": self.worker,
        }  # fmt: skip
        return max(shares, key=lambda name: shares[name])


@dataclass
class Place:
    """What the workers of one simulation share."""

    costs: Costs
    loop: Loop
    disk: Disk
    handed: float = 0.0  # s of the scheduler
    free: float = 0.0  # when the scheduler can hand out again


def _prelude(place: Place, worker: Worker) -> Process:
    """Hash over the raw files, then the fit: nothing is corrected before."""
    costs, loop, begun = place.costs, place.loop, place.loop.now
    raw = costs.tiles * costs.read_mb
    while raw > 0:
        piece = min(raw, 64.0)
        hashed = loop.now + piece / costs.hash_mbps / worker.speed
        yield max(place.disk.moved(loop.now, piece), hashed)
        raw -= piece
    for _ in range(costs.fit_tiles):
        yield place.disk.moved(loop.now, costs.read_mb)
    predicted = costs.fit_tiles * costs.predict_ms / 1000
    yield loop.now + (predicted + costs.solve_s) / worker.speed
    worker.serial += loop.now - begun


def _written(place: Place, worker: Worker, tiles: int, done: Signal) -> Process:
    yield place.loop.now + tiles * place.costs.encode_ms / 1000 / worker.speed
    yield place.disk.moved(place.loop.now, tiles * place.costs.write_mb)
    done.give(place.loop)


def _correct(place: Place, worker: Worker, groups: list[int], task_s: float) -> Process:
    """Take groups from a list, which others may take from, too, until it is empty."""
    costs, loop = place.costs, place.loop
    before: Signal | None = None
    while groups:
        tiles = groups.pop()
        if task_s:
            place.free = max(place.free, loop.now) + task_s
            place.handed += task_s
            yield place.free
        yield place.disk.moved(loop.now, tiles * costs.read_mb)
        each = costs.predict_ms + costs.divide_ms / costs.threads
        work = tiles * each / 1000 / worker.speed
        worker.useful += work
        yield loop.now + work
        if before is not None:
            yield before
        before = Signal()
        loop.spawn(_written(place, worker, tiles, before))
    if before is not None:
        yield before
    worker.end = loop.now


def _workers(costs: Costs, count: int) -> list[Worker]:
    rng = np.random.default_rng(count)
    speeds = np.exp(costs.spread * rng.standard_normal(count))
    return [Worker(float(speed)) for speed in speeds]


def _groups(costs: Costs) -> list[int]:
    full, rest = divmod(costs.tiles, GROUP)
    return [GROUP] * full + ([rest] if rest else [])


def shards(costs: Costs, mosaics: int, count: int) -> Outcome:
    """Whole mosaics by turn: ``correct m1 m2 ... --shard I/N``."""
    place, workers = Place(costs, Loop(), Disk(costs)), _workers(costs, count)

    def share(worker: Worker, own: int) -> Process:
        yield costs.start_s
        for _ in range(own):
            yield from _prelude(place, worker)
            yield from _correct(place, worker, _groups(costs), 0.0)

    for k, worker in enumerate(workers):
        place.loop.spawn(share(worker, len(range(k, mosaics, count))))
    place.loop.run()
    last = max(worker.end for worker in workers)
    return _outcome(place, workers, last, last, sum(w.serial for w in workers) / count)


def scheduler(costs: Costs, mosaics: int, count: int) -> Outcome:
    """All workers on one mosaic after the other: ``correct m1 m2 ... --scheduler``."""
    place, workers = Place(costs, Loop(), Disk(costs)), _workers(costs, count)

    def begin() -> Process:
        first = Worker(1.0)
        yield from _prelude(place, first)
        workers[0].serial = first.serial
        groups = _groups(costs)
        for worker in workers:
            # two tasks are with a worker at a time, so that it reads while it writes
            place.loop.spawn(_correct(place, worker, groups, costs.task_ms / 1000))

    place.loop.spawn(begin())
    place.loop.run()
    one = max(worker.end for worker in workers)  # every mosaic takes the same
    return _outcome(place, workers, costs.start_s + mosaics * one, one, workers[0].serial)


def _outcome(
    place: Place, workers: Sequence[Worker], total: float, span: float, serial: float
) -> Outcome:
    """Shares are of `span`, one round of the simulation; `total` is all rounds."""
    return Outcome(
        hours=total / 3600,
        disk=place.disk.busy / span,
        scheduler=place.handed / span,
        tail=1 - float(np.mean([worker.end for worker in workers])) / span,
        serial=serial / span,
        worker=float(np.mean([worker.useful for worker in workers])) / span,
    )


def table(costs: Costs, mosaics: int, counts: Sequence[int]) -> str:
    """Markdown tables of both ways to share the work."""
    ways: dict[str, Callable[[Costs, int, int], Outcome]] = {
        "whole mosaics by turn (`--shard I/N`)": shards,
        "all workers on one mosaic (`--scheduler`)": scheduler,
    }
    lines = []
    for title, simulate in ways.items():
        lines += ["", f"{mosaics} mosaics of {costs.tiles} tiles of {costs.size} px, {title}:", ""]
        lines += ["| workers | hours | mosaics/h | gain | disk | tail | limit |"]
        lines += ["|---|---|---|---|---|---|---|"]
        alone = simulate(costs, mosaics, 1).hours
        for count in counts:
            one = simulate(costs, mosaics, count)
            lines.append(
                f"| {count} | {one.hours:.1f} | {mosaics / one.hours:.0f} | "
                f"{alone / one.hours:.1f} x | {one.disk:.0%} | {one.tail:.0%} | {one.limit} |"
            )
    return "\n".join(lines)


def measure(size: int, tiles: int = 4) -> str:
    """CPU time of the stages of a tile here, as options of this command.

    CPU time, not time on the clock: other programs on the machine do not count.
    """
    from napari_txm_bgcorr import io
    from napari_txm_bgcorr.backgrounds.registry import make_method
    from napari_txm_bgcorr.core.correction import divide
    from napari_txm_bgcorr.simulation.acquisition import simulate_mosaic

    scan = simulate_mosaic(1, tiles, size=size, references=1, seed=1).scan
    raw = [np.asarray(scan.tiles[i]) for i in range(tiles)]
    method = make_method("auto", device="cpu").fit(scan)
    places = np.arange(tiles)

    def per_tile(work: Callable[[int], object]) -> float:
        work(0)
        started = time.process_time()
        for i in range(tiles):
            work(i)
        return 1000 * (time.process_time() - started) / tiles

    beams = [method.background(raw[i][None], places[i : i + 1])[0] for i in range(tiles)]
    predict = per_tile(lambda i: method.background(raw[i][None], places[i : i + 1]))
    division = per_tile(lambda i: divide(raw[i], beams[i], scan.dark()))
    with tempfile.TemporaryDirectory() as folder:
        from napari_txm_bgcorr.core.correction import TileResult

        output = io.open_output(Path(folder) / "out", "omezarr", scan, {"method": "auto"})
        done = [divide(raw[i], beams[i], scan.dark()) for i in range(tiles)]
        with output as writer:
            encode = per_tile(lambda i: writer.write(TileResult(i, raw[i], beams[i], *done[i])))
            kept = sum(p.stat().st_size for p in Path(folder).rglob("c/*/*/*"))
    share = kept / (10 * size**2 * tiles)
    return (
        f"--size {size} --predict-ms {predict:.1f} --divide-ms {division:.1f} "
        f"--encode-ms {encode:.1f} --written {share:.2f}"
    )


def main() -> None:
    """Read options, one for each cost, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for cost in fields(Costs):
        kind = type(cost.default)
        parser.add_argument(
            f"--{cost.name.replace('_', '-')}", type=kind, default=cost.default, metavar="X"
        )
    parser.add_argument("--mosaics", type=int, default=1000)
    parser.add_argument("--workers", default="1,2,4,8,16,32,64")
    parser.add_argument("--measure", action="store_true", help="time the stages on this CPU")
    given = vars(parser.parse_args())
    if given.pop("measure"):
        print(measure(given["size"]))
        return
    mosaics, counts = given.pop("mosaics"), given.pop("workers")
    print(table(Costs(**given), mosaics, [int(n) for n in counts.split(",")]).strip())


if __name__ == "__main__":
    main()
