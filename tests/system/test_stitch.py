"""The command `stitch`: taken up after every kill, and as a user types it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.io.output.job import DONE, JOB, LOCK
from napari_txm_bgcorr.io.output.pyramid_reader import open_pyramid
from napari_txm_bgcorr.workflows import stitch_path
from tests.workflows import stitch_parts
from tests.workflows.stitch_parts import make_result, run

COMMAND = [sys.executable, "-c", "from napari_txm_bgcorr.cli import main; main()"]
KILLS = 9
SIDE = 16


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=170
    )


def succeed(*arguments: object) -> str:
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def finished_chunks(part: Path, columns: int, finest: int) -> dict[Path, tuple[int, int]]:
    """Chunk files of the finest units that are noted as done: which files they are, and when."""
    lines = (part / DONE).read_text().split("\n")[:-1] if (part / DONE).exists() else []
    found = {}
    for number in (int(line) for line in lines if int(line) < finest):
        row, column = divmod(number, columns)
        path = part / "corrected" / "0" / "c" / str(2 * row) / str(2 * column)
        if path.exists():
            state = path.stat()
            found[path.relative_to(part)] = (state.st_ino, state.st_mtime_ns)
    return found


def check_valid(part: Path, whole: Path) -> None:
    """Every chunk of an unfinished store can be read, and holds what it will hold."""
    for role in ("raw", "corrected"):
        for path in sorted((part / role).glob("*/c/*/*")):
            if path.suffix != ".part":
                assert path.read_bytes() == (whole / path.relative_to(part)).read_bytes()
        if (part / role / "0" / "zarr.json").exists():
            assert zarr.open_array(part / role / "0", mode="r")[:].shape


class Killer:
    """Runs the stitching of one place again and again, and kills it."""

    def __init__(self, source: Path, out: Path, form: str) -> None:
        script = [sys.executable, "-m", stitch_parts.__name__, str(source), str(out), form]
        root = Path(stitch_parts.__file__).parents[2]
        self.process = subprocess.Popen(
            script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
        )

    def __enter__(self) -> Killer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=60)

    def after(self, delay: float) -> bool:
        """Run once, kill after `delay` seconds; False where it had ended before."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{delay}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline() == "killed\n"


@pytest.mark.parametrize("form", ["omezarr", "ometiff"])
def test_killed_anywhere_it_goes_on_and_ends_bit_identical(tmp_path: Path, form: str) -> None:
    source = make_result(tmp_path / "source", 6, 6)
    run(source, tmp_path / "warm", form=form)
    started = time.perf_counter()
    height, width = run(source, tmp_path / "whole", form=form)["shape"]  # type: ignore[misc]
    longest = (time.perf_counter() - started) / 4
    columns, rows = (-(-n // (2 * SIDE)) for n in (width, height))
    whole, out, part = (content(tmp_path / "whole"), tmp_path / "out", tmp_path / "out.part")
    rng = np.random.default_rng()
    kills, in_work, kept = 0, 0, {}
    with Killer(source, out, form) as killer:
        while kills < KILLS or in_work < 3:
            kills += killer.after(float(rng.uniform(0, longest)))
            assert kills < 20 * KILLS
            if out.exists():  # it was faster than the kills: once more from the beginning
                found = content(out)
                # killed between the rename and the removal of notes: the next command removes them
                left = [name for name in found if Path(name).name in (JOB, DONE, LOCK)]
                assert {k: v for k, v in found.items() if k not in left} == whole
                shutil.rmtree(out)
                longest, kept = longest * 0.7, {}
            elif form == "omezarr" and part.exists():
                for path, state in kept.items():  # what was done is not done again
                    now = (part / path).stat()
                    assert (now.st_ino, now.st_mtime_ns) == state
                kept = finished_chunks(part, columns, rows * columns)
                check_valid(part, tmp_path / "whole")
            if (part / DONE).exists() and (part / DONE).stat().st_size > 0:
                in_work += 1
            elif not out.exists():  # killed while it was starting
                longest *= 1.3
    run(source, out, form=form)
    assert content(out) == whole
    for path, state in kept.items():
        now = (out / path).stat()
        assert (now.st_ino, now.st_mtime_ns) == state


def test_command_stitches_and_says_by_which_positions(tmp_path: Path) -> None:
    source = make_result(tmp_path / "source.ome.zarr", 2, 3)
    printed = succeed("stitch", source, "-o", tmp_path / "out.ome.zarr")
    assert "6 tiles stitched to 164 x 114 px" in printed and "positions: registered" in printed
    summary = json.loads(
        succeed(
            "stitch", source, "-o", tmp_path / "od.ome.zarr", "--as", "od",
            "--parts", "raw,corrected", "--json",
        )
    )  # fmt: skip
    assert summary["complete"] and summary["parts"] == ["raw", "corrected"]
    one, two = (open_pyramid(tmp_path / name) for name in ("out.ome.zarr", "od.ome.zarr"))
    density, transmission = (p.levels["corrected"][0][:] for p in (two, one))
    off = np.abs(density + np.log(transmission))
    assert np.nanquantile(off, 0.9) < 1e-4  # equal but for bad pixels
    again = command("stitch", source, "-o", tmp_path / "out.ome.zarr")
    assert again.returncode == 2 and "exists" in again.stderr
    assert len(again.stderr.strip().splitlines()) == 1


def test_correct_stitches_mosaics_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    raw = tmp_path / "sample-m2x3"
    succeed("simulate", "mosaic", "--grid", "2x3", "--size", 64, "-o", raw)
    arguments = ("correct", raw, "-o", tmp_path / "out.ome.zarr", "--method", "tile-median",
                 "--stitch", "--json")  # fmt: skip
    done = json.loads(succeed(*arguments))["results"][0]["stitched"]
    place = tmp_path / "out-stitched.ome.zarr"
    assert Path(done["output"]) == place and done["complete"] and done["parts"] == ["corrected"]
    before = content(place)
    place.rename(tmp_path / "away")  # as if it had been interrupted after the last tile
    again = json.loads(succeed(*arguments))["results"][0]
    assert again["resumed"] == 6 and content(place) == before
    assert open_pyramid(place).levels["corrected"][0].shape == tuple(done["shape"])


def test_join_stitches_what_shares_have_made(tmp_path: Path) -> None:
    raw, out = tmp_path / "sample-m2x3", tmp_path / "out.ome.zarr"
    succeed("simulate", "mosaic", "--grid", "2x3", "--size", 64, "-o", raw)
    shares = ("correct", raw, "-o", out, "--method", "tile-median", "--save", "corrected,mask")
    for share in ("1/2", "2/2"):
        succeed(*shares, "--shard", share)
    place = tmp_path / "out-stitched.ome.zarr"
    printed = succeed("correct", raw, "-o", out, "--shard", "join", "--stitch")
    assert f"stitched: {place}" in printed
    assert json.loads((place / "zarr.json").read_text())  # renamed when whole
    again = command("correct", raw, "-o", out, "--shard", "join", "--stitch")
    assert again.returncode == 2 and "exists" in again.stderr
    one = tmp_path / "one.ome.zarr"
    parts = ("--save", "corrected,mask", "--stitch")
    succeed("correct", raw, "-o", one, "--method", "tile-median", *parts)
    assert same_pixels(place, tmp_path / "one-stitched.ome.zarr")


def same_pixels(first: Path, second: Path) -> bool:
    """Equal values, unknown ones included, on every level."""
    one, two = open_pyramid(first).levels["corrected"], open_pyramid(second).levels["corrected"]
    return len(one) == len(two) and all(
        np.array_equal(a[:], b[:], equal_nan=True) for a, b in zip(one, two, strict=True)
    )


def test_a_picture_never_replaces_corrected_tiles(tmp_path: Path) -> None:
    for name in ("one", "other"):
        make_result(tmp_path / name)
    before = sorted(p for p in (tmp_path / "other").rglob("*"))
    with pytest.raises(WriteError, match="corrected tiles, which no picture replaces"):
        stitch_path(tmp_path / "one", tmp_path / "other", overwrite=True)
    assert sorted(p for p in (tmp_path / "other").rglob("*")) == before
