"""Many processes make one output: the bits are those of one, whoever is killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import tifffile

from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.errors import ConfigError, WriteError
from napari_txm_bgcorr.io import OutputWriter
from napari_txm_bgcorr.io.output.job import NOT_OF_IT
from napari_txm_bgcorr.io.output.shared_store import join_shards, shard_tiles
from napari_txm_bgcorr.workflows.cluster import distributed
from napari_txm_bgcorr.workflows.cluster import schedulers as clusters
from napari_txm_bgcorr.workflows.config import CorrectionConfig, parse_shard
from napari_txm_bgcorr.workflows.correction import correct_scans
from napari_txm_bgcorr.workflows.prepare import open_scan
from tests.workflows.runs import correct_paths

MAIN = "from napari_txm_bgcorr.cli import main; main()"
KILLED_WITHIN_A_TILE = """
import os, signal
from napari_txm_bgcorr.io.output.zarr import ZarrSink
put, left = ZarrSink._put, [8]  # three chunks a tile: the third tile is cut short
def cut(self, chunk, data):
    left[0] -= 1
    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)
    put(self, chunk, data)
ZarrSink._put = cut
"""
PLAIN = CorrectionConfig(method="tile-median", save=("raw", "background", "corrected"))


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty tiles whose backgrounds differ."""
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:48, :40] / 40
    for k in range(40):
        beam = 9000 + 4000 * np.sin(3 * x + 0.1 * k) * np.cos(2 * y)
        tifffile.imwrite(folder / f"t_{k:02d}.tif", rng.poisson(beam).astype(np.uint16))
    return folder


@pytest.fixture(scope="module")
def whole(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes of them."""
    out = tmp_path_factory.mktemp("whole") / "out"
    correct_paths([tiles], out, PLAIN)
    return content(out)


def content(out: Path) -> dict[str, bytes]:
    """Bytes of every file; of the record, what says how and when it was made is left out."""
    found = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    for name in found:
        if name.endswith("zarr.json"):
            found[name] = json.dumps(_undated(json.loads(found[name])), indent=1).encode()
    return found


def _undated(record: Any) -> Any:
    if isinstance(record, list):
        return [_undated(one) for one in record]
    if isinstance(record, dict):
        return {k: _undated(v) for k, v in record.items() if k not in NOT_OF_IT}
    return record


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code + MAIN, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# shards


@pytest.mark.parametrize(("count", "n"), [(961, 16), (40, 3), (5, 8), (8, 8), (1, 1)])
def test_shards_share_all_tiles_and_keep_the_groups_of_one_process(count: int, n: int) -> None:
    shares = [shard_tiles(count, (i, n)) for i in range(1, n + 1)]
    assert sorted(k for share in shares for k in share) == list(range(count))
    if count >= 8 * n:
        assert max(map(len, shares)) - min(map(len, shares)) <= 8
        for share in shares:
            groups = [share[first : first + 8] for first in range(0, len(share), 8)]
            assert all(group[0] % 8 == 0 and group[-1] - group[0] < 8 for group in groups)


@pytest.mark.parametrize("text", ["0/3", "4/3", "a/b", "3", "1/0", "", "-1/2"])
def test_a_wrong_shard_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="--shard"):
        parse_shard(text)


@pytest.mark.timeout(600)  # processes start; on a busy machine slowly
def test_shards_started_at_once_and_one_killed_give_the_bits_of_one_process(
    tiles: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["correct", tiles, "-o", out, "--method", "tile-median", "--json", "--shard"]
    processes = [
        start(KILLED_WITHIN_A_TILE if i == 2 else "", *command, f"{i}/3") for i in (1, 2, 3)
    ]
    printed = [process.communicate(timeout=170) for process in processes]
    codes = [process.returncode for process in processes]
    assert codes == [0, -signal.SIGKILL, 0], printed
    assert not out.exists()
    for text, _ in (printed[0], printed[2]):
        assert json.loads(text)["results"][0]["complete"] is False
    with pytest.raises(WriteError, match="tiles are missing"):
        join_shards(out)
    with pytest.raises(WriteError, match="begun with --shard"):
        correct_paths([tiles], out, PLAIN)

    again = start("", *command, "2/3")
    text, errors = again.communicate(timeout=170)
    result = json.loads(text)["results"][0]
    assert (
        result["complete"]
        and result["resumed"] == len(shard_tiles(40, (1, 3))) + len(shard_tiles(40, (3, 3))) + 2
    ), errors
    assert content(out) == whole
    assert list(tmp_path.iterdir()) == [out]  # nothing is left behind


def test_a_shard_of_a_complete_output_has_nothing_to_do(
    tiles: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    one = PLAIN.replaced(shard="1/1")
    assert correct_paths([tiles], out, one)["results"][0]["complete"]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert correct_paths([tiles], out, one)["results"][0]["resumed"] == 40
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert content(out) == whole


def test_several_inputs_are_shared_out_whole(tiles: Path, tmp_path: Path) -> None:
    inputs = []
    for name in "abc":
        folder = tmp_path / name
        folder.mkdir()
        for k in range(3):
            (folder / f"t_{k}.tif").write_bytes((tiles / f"t_{k:02d}.tif").read_bytes())
        inputs.append(folder)
    made = []
    for i in (1, 2):
        options = CorrectionConfig(**{**vars(PLAIN), "shard": f"{i}/2"})
        made.append(correct_paths(inputs, tmp_path / "out", options)["results"])
    outputs = [[Path(done["output"]).name for done in results] for results in made]
    assert outputs == [["a.ome.zarr", "c.ome.zarr"], ["b.ome.zarr"]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"shard": "1/2", "format": "tiff"},
        {"scheduler": "local:2", "format": "ometiff"},
        {"shard": "1/2", "scheduler": "local:2"},
        {"shard": "1/2", "overwrite": True},
    ],
)
def test_what_processes_cannot_share_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--"):
        CorrectionConfig(**wrong)


# dask.distributed


class Interrupted(distributed.Distributed):
    """Is interrupted after the first tile, as by Ctrl-C."""

    def run(self, scans: Sequence[Scan], writer: OutputWriter) -> Iterator[tuple[int, bool]]:
        for done in super().run(scans, writer):
            yield done
            raise KeyboardInterrupt


class Killing(distributed.Distributed):
    """Kills a busy worker as soon as the first tile is done."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.log: list[str] = []
        cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers have no tests
        self._client.run(_slow_down)
        self._pids: dict[str, int] = self._client.run(os.getpid)

    def run(self, scans: Sequence[Scan], writer: OutputWriter) -> Iterator[tuple[int, bool]]:
        for number, done in enumerate(super().run(scans, writer)):
            if number == 0:
                self._kill()
            yield done

    def _kill(self) -> None:
        while not (busy := {a: t for a, t in self._client.processing().items() if t}):
            time.sleep(0.01)
        address, tasks = next(iter(busy.items()))
        self.log.append(f"killed worker {address} (pid {self._pids[address]}) with {len(tasks)}")
        os.kill(self._pids[address], signal.SIGKILL)


def _slow_down() -> None:
    """In a worker: a tile takes a while, so that the kill comes in the middle."""
    from napari_txm_bgcorr.io.output import shared_store as shared

    write = shared.ChunkWriter.write

    def slow(self: shared.ChunkWriter, result: Any) -> None:
        time.sleep(0.03)
        write(self, result)

    shared.ChunkWriter.write = slow  # type: ignore[method-assign]


@pytest.mark.timeout(600)  # processes start; on a busy machine slowly
def test_after_ctrl_c_and_with_a_killed_worker_the_bits_are_those_of_one_process(
    tiles: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    options = PLAIN.replaced(scheduler="local:2")
    out = tmp_path / "out"
    with clusters.cluster_client("local:2") as client:
        with pytest.raises(KeyboardInterrupt):
            correct_scans([open_scan(tiles, options)], Interrupted(client, options), out, options)
        assert not out.exists() and out.with_name("out.part").is_dir()
        runner = Killing(client, options)
        result = correct_scans([open_scan(tiles, options)], runner, out, options)
        after = client.run(os.getpid)
    assert len(runner.log) == 1, runner.log
    assert set(runner._pids.values()) != set(after.values())
    assert result["complete"] and result["tiles"] == 40 and 1 <= result["resumed"] < 40
    assert content(out) == whole
    assert list(tmp_path.iterdir()) == [out]
    print(*runner.log, sep="\n")


SLOW = """
import time
from napari_txm_bgcorr.io.output.shared_store import ChunkWriter
write = ChunkWriter.write
def slow(self, result):
    time.sleep(0.05)
    write(self, result)
def dask_setup(worker):
    ChunkWriter.write = slow
"""


def wait_for_tiles(part: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until so many tiles are noted as done."""
    while sum(p.read_bytes().count(b"\n") for p in part.glob(".txm-bgcorr-done*")) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.timeout(600)  # processes start; on a busy machine slowly
def test_after_a_lost_worker_and_a_lost_scheduler_the_same_command_goes_on(
    tiles: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Scheduler and workers as somebody starts them by hand."""
    address, slow, out = tmp_path / "scheduler.json", tmp_path / "slow.py", tmp_path / "out"
    slow.write_text(SLOW)
    dask = [sys.executable, "-m", "dask"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    given = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", address]
    scheduler = subprocess.Popen([*dask, "scheduler", *map(str, given)], **quiet)
    own = ["--no-nanny", "--no-dashboard", "--nthreads", "1", "--local-directory", tmp_path / "w"]
    given = ["--scheduler-file", address, "--preload", slow, *own]
    workers = [subprocess.Popen([*dask, "worker", *map(str, given)], **quiet) for _ in range(2)]
    try:
        while not address.is_file():
            assert scheduler.poll() is None
            time.sleep(0.05)
        command = ["correct", tiles, "-o", out, "--method", "tile-median"]
        run = start("", *command, "--scheduler", address)
        wait_for_tiles(out.with_name("out.part"), 4, run)
        workers[0].kill()
        wait_for_tiles(out.with_name("out.part"), 20, run)
        scheduler.kill()
        _, errors = run.communicate(timeout=170)
    finally:
        for process in (scheduler, *workers):
            process.kill()
            process.wait()
    told = errors.strip().splitlines()[-1]
    assert run.returncode == 2 and "the scheduler is gone" in told, errors
    assert "Traceback" not in errors and not out.exists()
    result = correct_paths([tiles], out, PLAIN)["results"][0]
    assert 20 <= result["resumed"] < 40
    assert content(out) == whole


def test_a_worker_with_another_version_is_named() -> None:
    class Versions:
        def get_versions(self, packages: list[str]) -> dict[str, Any]:
            def have(version: str | None) -> dict[str, Any]:
                return {"packages": dict.fromkeys(packages, version)}

            workers = {"tcp://a:1": have("2.0"), "tcp://b:2": have(None)}
            return {"client": have("2.0"), "scheduler": have("2.0"), "workers": workers}

    client: Any = Versions()
    with pytest.raises(ConfigError, match=r"worker tcp://b:2 has .* not installed"):
        clusters._same_program(client, "tcp://c:3")


def test_a_worker_does_the_same_in_process(
    tiles: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """The task itself, both with the fit that travels and with one of its own."""
    from napari_txm_bgcorr.io import open_output

    for travels in (True, False):
        work = distributed.Work((tiles,), PLAIN, tmp_path / f"out-{travels}")
        fitted = distributed.fit_work(work)
        assert fitted.state is not None
        state = fitted.state if travels else None
        fitted = distributed.Fitted(fitted.described, fitted.provenance, state)
        scan = open_scan(tiles, PLAIN)
        with open_output(work.out, "omezarr", scan, fitted.provenance, save=PLAIN.save) as writer:
            for group in ([39, 0, 5], [i for i in range(40) if i not in (0, 5, 39)]):
                for index, seen in distributed.correct_tiles_of(work, fitted, group):
                    assert seen
                    writer.note(index)
            writer.close_complete()
        assert content(work.out) == whole
        distributed._held.clear()


def test_a_fitted_generator_travels_without_its_weights(tiles: Path) -> None:
    from napari_txm_bgcorr.backgrounds.registry import make_method

    scan = open_scan(tiles, PLAIN)
    fitted = make_method("auto", joint=False, device="cpu")
    scan = replace(scan, flats=np.stack([scan.tiles[7], scan.tiles[8]]))
    data = cloudpickle.dumps(fitted.fit(scan))
    assert len(data) < 200_000  # the references and the dark; not 16 MiB of weights
    received = cloudpickle.loads(data)
    stack, index = np.stack([scan.tiles[3]]), np.array([3])
    np.testing.assert_array_equal(
        received.background(stack, index), fitted.background(stack, index)
    )
    assert received.describe() == fitted.describe()


def test_a_slurm_file_becomes_a_job_script(tmp_path: Path) -> None:
    path = tmp_path / "slurm.yaml"
    path.write_text(
        "jobs: 4\nqueue: gpu\naccount: txm\ncores: 8\nmemory: 32GB\nwalltime: '02:00:00'\n"
        "gpus: 1\ndirectives: ['--exclusive']\nprologue: ['module load cuda']\n"
    )
    arguments = clusters.slurm_arguments(clusters.read_slurm(path))
    from dask_jobqueue.slurm import SLURMJob

    script = SLURMJob(scheduler="tcp://10.0.0.1:8786", name="one", **arguments).job_script()
    for line in (
        "#SBATCH -p gpu", "#SBATCH -A txm", "#SBATCH --cpus-per-task=8", "#SBATCH --mem=30G",
        "#SBATCH -t 02:00:00", "#SBATCH --gres=gpu:1", "#SBATCH --exclusive", "module load cuda",
    ):  # fmt: skip
        assert line in script.splitlines(), script
    assert "--nworkers 1" in script or "--nworkers" not in script


@pytest.mark.parametrize(
    ("text", "named"),
    [("walltim: 1", "walltim"), ("jobs: 0", "jobs"), ("a: [", "YAML"), ("gpus: many", "gpus")],
)
def test_a_wrong_slurm_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "slurm.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named) as caught:
        clusters.read_slurm(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("where", ["local:0", "local:many", "somewhere", "slurm:missing.yaml"])
def test_a_wrong_scheduler_is_named(where: str) -> None:
    with (
        pytest.raises(ConfigError, match=where.removeprefix("slurm:")),
        clusters.cluster_client(where),
    ):
        pass


def test_a_missing_package_comes_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"pip install 'napari-txm-bgcorr\[cluster\]'"):
        clusters._package("distributed")


def test_a_fitted_joint_stage_travels_without_the_tiles(tmp_path: Path) -> None:
    from napari_txm_bgcorr.backgrounds.registry import make_method

    made = start("", "simulate", "mosaic", "--grid", "4x6", "--size", 128, "-o", tmp_path / "m")
    assert made.wait(170) == 0
    made.communicate()
    scan = open_scan(tmp_path / "m", PLAIN)
    fitted: Any = make_method("tile-median", joint=True).fit(scan)
    data = cloudpickle.dumps(fitted)
    # Backgrounds and uncertainty on cells, 64 x 64 at most; tiles of this test are hardly larger.
    assert len(data) < 1.2 * sum(one.nbytes for one in fitted.backgrounds.arrays().values())
    received = cloudpickle.loads(data)
    stack, index = np.stack([scan.tiles[3], scan.tiles[20]]), np.array([3, 20])
    np.testing.assert_array_equal(
        received.background(stack, index), fitted.background(stack, index)
    )
