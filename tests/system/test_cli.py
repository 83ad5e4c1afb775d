"""The command as a user types it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from napari_txm_bgcorr.io.output.patch import open_finished
from napari_txm_bgcorr.io.readers.tile_layout import parse_tile_configuration

COMMAND = [sys.executable, "-c", "from napari_txm_bgcorr.cli import main; main()"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=170
    )


def succeed(*arguments: object) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fail(*arguments: object) -> str:
    done = run(*arguments)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    return done.stderr


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "sample-m2x3"
    succeed("simulate", "mosaic", "--grid", "2x3", "--size", 128, "--references", 2, "-o", folder)
    return folder


def tile_names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.tif"))


def test_info_tells_the_grid_as_json(mosaic: Path) -> None:
    facts = json.loads(succeed("info", mosaic, "--json"))
    assert facts["kind"] == "mosaic"
    assert facts["grid"] == [2, 3]
    assert facts["shape"] == [6, 128, 128]
    assert facts["dtype"] == "uint16"
    assert set(facts) >= {
        "pixel_nm", "energy_ev", "exposure_s", "binning", "flats", "darks", "times", "source",
    }  # fmt: skip


def test_correct_writes_one_float_tiff_a_tile_under_its_own_name(
    mosaic: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    printed = succeed(
        "correct", mosaic, "-o", out, "--method", "tile-median", "--format", "tiff", "--json"
    )
    summary = json.loads(printed)["results"][0]
    assert summary["tiles"] == 6 and summary["method"] == "tile-median"
    for part in ("background", "corrected"):
        assert tile_names(out / part) == tile_names(mosaic)
        for path in (out / part).glob("*.tif"):
            image = tifffile.imread(path)
            assert image.dtype == np.float32 and image.shape == (128, 128)
            assert np.isfinite(image).all()
    assert not out.with_name("out.part").exists()


def test_several_tiles_share_one_output_and_are_corrected_one_by_one(
    mosaic: Path, tmp_path: Path
) -> None:
    tiles = sorted(mosaic.glob("*.tif"))[:3]
    succeed("correct", *tiles, "-o", tmp_path / "all", "--method", "smooth", "--format", "tiff")
    assert tile_names(tmp_path / "all" / "corrected") == [tile.stem for tile in tiles]
    succeed("correct", tiles[1], "-o", tmp_path / "one", "--method", "smooth", "--format", "tiff")
    name = tiles[1].name
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "all" / "corrected" / name),
        tifffile.imread(tmp_path / "one" / "corrected" / name),
    )


def test_captured_references_from_the_command_line(mosaic: Path, tmp_path: Path) -> None:
    references = mosaic / "references"
    out = tmp_path / "out"
    succeed(
        "correct", mosaic, "-o", out, "--method", "captured", "--reference", references,
        "--format", "tiff",
    )  # fmt: skip
    truth = tifffile.imread(sorted((mosaic / "truth" / "transmission").glob("*.tif"))[0])
    corrected = tifffile.imread(sorted((out / "corrected").glob("*.tif"))[0])
    inner = (slice(40, 88), slice(40, 88))
    ratio = corrected[inner] / truth[inner]
    assert ratio.std() / ratio.mean() < 0.1


@pytest.mark.parametrize("combine", ["mean", "median"])
def test_plain_combination_is_that_of_other_programs(
    txm_data: Path, tmp_path: Path, combine: str
) -> None:
    out = tmp_path / "out"
    arguments = ["-o", out, "--method", "captured", "--combine", combine]
    path = txm_data / "hdf5" / "tooth.h5"
    succeed("correct", path, *arguments)
    with h5py.File(path) as h5:
        raw, whites, darks = (
            h5[f"exchange/{name}"][:].astype(np.float64)
            for name in ("data", "data_white", "data_dark")
        )
    dark = getattr(np, combine)(darks, axis=0)
    expected = (raw - dark) / (getattr(np, combine)(whites, axis=0) - dark)
    np.testing.assert_allclose(open_finished(out).corrected[:], expected, rtol=1e-6)
    assert open_finished(out).provenance["parameters"]["combine"] == combine


def test_combine_is_for_captured_references(mosaic: Path, tmp_path: Path) -> None:
    assert "--combine mean: not for --method auto" in fail(
        "correct", mosaic, "-o", tmp_path / "o", "--combine", "mean"
    )
    assert "choose from interpolated, mean" in fail(
        "correct", mosaic, "-o", tmp_path / "o", "--method", "captured", "--combine", "max"
    )


def test_references_of_another_energy_are_told_of(txm_data: Path, tmp_path: Path) -> None:
    folder = txm_data / "aps8bm"
    images = [folder / f"fov03_xanes{name}_8353_0eV.xrm" for name in ("ocv", "soc01")]
    wrong = ["--reference", folder / "ref_xanesocv_8250_0eV.xrm"]
    printed = json.loads(
        succeed("correct", *images, "-o", tmp_path / "a", "--method", "captured", *wrong, "--json")
    )
    notes = printed["results"][0]["notes"]
    assert notes[0].startswith(
        "the image was taken at 8353 eV and divided by references of 8249.9"
    )
    assert notes[1].startswith("references of 50 s scaled to the image's 35 s")  # of the second
    recorded = open_finished(tmp_path / "a").provenance["parameters"]["notes"]
    assert recorded == notes[: len(recorded)]
    printed = json.loads(
        succeed("correct", images[0], "-o", tmp_path / "b", *wrong, "--no-joint", "--json")
    )
    note = "the reference was taken at 8249.9 eV, the image at 8353 eV: its shape is not used"
    assert note in printed["results"][0]["notes"]
    succeed("correct", images[0], "-o", tmp_path / "c", "--no-joint")
    one, other = (open_finished(tmp_path / name).background[:] for name in "bc")
    np.testing.assert_array_equal(one, other)  # as if it had not been given


def test_an_output_in_the_way_is_kept_unless_overwrite(mosaic: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    succeed("correct", mosaic, "-o", out, "--method", "smooth", "--format", "tiff")
    before = {p: p.read_bytes() for p in out.rglob("*.tif")}
    message = fail("correct", mosaic, "-o", out, "--method", "tile-median", "--format", "tiff")
    assert str(out) in message and "--overwrite" in message
    assert {p: p.read_bytes() for p in out.rglob("*.tif")} == before
    succeed(
        "correct", mosaic, "-o", out, "--method", "tile-median", "--format", "tiff", "--overwrite"
    )
    assert {p: p.read_bytes() for p in out.rglob("*.tif")} != before


def test_a_corrected_result_is_not_corrected_again(mosaic: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    succeed("correct", mosaic, "-o", out, "--method", "smooth", "--format", "tiff")
    message = fail("correct", out / "corrected", "-o", tmp_path / "twice", "--method", "smooth")
    assert "force" in message
    succeed(
        "correct", out / "corrected", "-o", tmp_path / "twice", "--method", "smooth", "--force"
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["info", "nowhere.xrm"], "nowhere.xrm"),
        (["correct", "nowhere.xrm", "-o", "out"], "nowhere.xrm"),
        (["correct", "x.tif", "-o", "out", "--method", "magic"], "magic"),
        (["correct", "x.tif", "-o", "out", "--save", "everything"], "everything"),
        (["correct", "x.tif", "-o", "out", "--grid", "five"], "five"),
        (["correct", "x.tif", "-o", "out", "--format", "bmp"], "bmp"),
        (["correct", "x.tif", "-o", "out", "--device", "quantum"], "quantum"),
        (["correct", "x.tif", "-o", "out", "--model", "nobody"], "nobody"),
        (["train", "no-such-preset", "--run", "run"], "no-such-preset"),
        (["train", "default", "--run", "run", "--set", "steps=-1"], "steps: '-1'"),
        (["simulate", "planet", "-o", "out"], "planet"),
    ],
)
def test_a_users_error_is_one_line_that_names_it(
    arguments: list[str], named: str, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "x.tif", np.full((64, 64), 900, np.uint16))
    placed = [str(tmp_path / a) if a in {"x.tif", "out", "run"} else a for a in arguments]
    assert named in fail(*placed)
    assert not (tmp_path / "out").exists()


def test_doctor_reports_versions_devices_and_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TXM_BGCORR_MODELS", str(tmp_path))
    (tmp_path / "mine.safetensors").write_bytes(b"weights")
    report = json.loads(succeed("doctor", "--json"))
    assert report["models"]["mine"] == str(tmp_path / "mine.safetensors")
    assert report["packages"]["torch"][0].isdigit()
    assert "cpu" in report["devices"]
    assert "GiB" in report["system"]["memory free"]


def test_bench_correct_reports_its_figures() -> None:
    row = json.loads(
        succeed("bench", "correct", "--tiles", 4, "--size", 128, "--method", "smooth", "--json")
    )
    assert row["ratio"] == pytest.approx(row["seconds"] / row["io_seconds"], rel=0.05)
    assert row["tiles"] == 4 and row["size"] == 128
    assert 10 < row["peak_rss_mb"] < 4000


@pytest.mark.parametrize(
    "arguments",
    [
        ["info"],
        ["info", "--colour", "x.tif"],
        ["inform", "x.tif"],
        ["info", "x.tif", "--pixel-nm", "small"],
        ["correct", "x.tif"],
        ["simulate", "tile", "-o", "out", "--size", "big"],
    ],
)
def test_a_mistyped_command_line_is_one_line_that_names_the_help(arguments: list[str]) -> None:
    message = fail(*arguments)
    assert message.startswith("txm-bgcorr: ") and "--help" in message


def test_help_is_shown_where_nothing_is_asked() -> None:
    done = run()
    assert done.returncode == 2 and "correct" in done.stderr and "Usage" in done.stderr
    assert "Usage" in succeed("correct", "--help")
    assert succeed("--version").startswith("txm-bgcorr ")


def test_an_interrupt_says_how_to_go_on_and_the_next_run_gives_the_same_bits(
    mosaic: Path, tmp_path: Path
) -> None:
    arguments = ["--method", "smooth", "--format", "tiff"]
    command = [*COMMAND, "correct", str(mosaic), "-o", str(tmp_path / "out"), *arguments]
    # the interrupt comes while the second tile is written
    stop = (
        "import os, signal, time; "
        "from napari_txm_bgcorr.io.output.writer import OutputWriter as W; "
        # a shell that starts the tests in the background has it ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler); first = W.write; "
        "W.write = lambda s, r: (os.kill(os.getpid(), signal.SIGINT), time.sleep(9)) "
        "if r.index == 1 else first(s, r); "
    )
    command[2] = stop + command[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170)
    assert done.returncode == 130 and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1 and "go on" in done.stderr
    assert not (tmp_path / "out").exists()
    again = succeed("correct", mosaic, "-o", tmp_path / "out", *arguments, "--json")
    assert json.loads(again)["results"][0]["resumed"] == 1
    succeed("correct", mosaic, "-o", tmp_path / "whole", *arguments)
    for path in (tmp_path / "whole").rglob("*.tif"):
        other = tmp_path / "out" / path.relative_to(tmp_path / "whole")
        np.testing.assert_array_equal(tifffile.imread(path), tifffile.imread(other))


def record(path: Path) -> dict[str, Any]:
    """What an output file says of itself, read with tifffile alone."""
    with tifffile.TiffFile(path) as tif:
        return dict(json.loads((tif.imagej_metadata or {})["Info"])["txm_bgcorr"])


def test_each_tile_carries_the_place_and_hash_of_its_own_file(
    mosaic: Path, tmp_path: Path
) -> None:
    tiles = sorted(mosaic.glob("*.tif"))[:2]
    for name, given in (("folder", [mosaic]), ("files", tiles)):
        out = tmp_path / name
        succeed("correct", *given, "-o", out, "--method", "smooth", "--format", "tiff")
        for tile in tiles:
            for part in ("raw", "background", "corrected"):
                said = record(out / part / tile.name)["provenance"]
                assert said["source_path"] == str(tile)
                assert said["source_sha256"] == hashlib.sha256(tile.read_bytes()).hexdigest()
        whole = json.loads((out / "provenance.json").read_text())["txm_bgcorr"]
        assert whole["scan"]["files"][0]["source_path"] == str(tiles[0])
        assert Path(whole["provenance"]["source_path"]).is_absolute()


def test_an_unfinished_run_is_not_taken_up_with_other_references_or_darks(
    mosaic: Path, tmp_path: Path
) -> None:
    out, references = tmp_path / "out", sorted((mosaic / "references").glob("*.tif"))
    dark = tmp_path / "dark_1.tif"
    tifffile.imwrite(dark, np.full((128, 128), 100, np.uint16))
    arguments = ["-o", out, "--method", "captured", "--format", "tiff", "--reference"]
    stop = (
        "from napari_txm_bgcorr.io.output.writer import OutputWriter as W; "
        "W.close_complete = lambda s: (_ for _ in ()).throw(OSError(28, 'full')); "
    )
    command = [COMMAND[0], "-c", stop + COMMAND[2], "correct", mosaic, *arguments, references[0]]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=170)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "another" in fail("correct", mosaic, *arguments, references[1])
    assert "another" in fail("correct", mosaic, *arguments, references[0], "--dark", dark)
    summary = json.loads(succeed("correct", mosaic, *arguments, references[0], "--json"))
    assert summary["results"][0]["resumed"] == 6


def test_of_several_outputs_those_already_made_are_kept_when_the_rest_is_taken_up(
    mosaic: Path, tmp_path: Path
) -> None:
    stack = tmp_path / "stack.tif"
    pages = np.random.default_rng(1).integers(900, 1100, (3, 64, 64)).astype(np.uint16)
    tifffile.imwrite(stack, pages, photometric="minisblack")
    command = ["correct", mosaic, stack, "-o", tmp_path / "out", "--method", "smooth"]
    succeed(*command)
    kept = tmp_path / "out" / f"{mosaic.name}.ome.zarr"
    before = {p: p.stat().st_mtime_ns for p in kept.rglob("*")}
    shutil.rmtree(tmp_path / "out" / "stack.ome.zarr")
    results = json.loads(succeed(*command, "--json"))["results"]
    assert [one["resumed"] for one in results] == [6, 0]
    assert {p: p.stat().st_mtime_ns for p in kept.rglob("*")} == before
    assert (tmp_path / "out" / "stack.ome.zarr" / "zarr.json").is_file()
    assert "exists" in fail(*command[:-1], "envelope")


def test_tiles_without_a_valid_pixel_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    for number, value in enumerate((900.0, np.nan, 0.0), start=1):
        image = np.full((64, 64), value, np.float32)
        image += np.random.default_rng(number).normal(0, 9, image.shape) * (value == 900)
        tifffile.imwrite(folder / f"t_{number}.tif", image.astype(np.float32))
    printed = succeed("correct", folder, "-o", tmp_path / "out", "--method", "smooth")
    assert "note: no valid pixel in 2 tiles (t_2, t_3)" in printed


def test_a_place_that_cannot_be_written_is_told_before_any_work(
    mosaic: Path, tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_text("mine")
    work = "--method", "generator", "--model", "nobody"  # is looked at after the place
    for out in (tmp_path / "note.txt" / "out", tmp_path / "note.txt", tmp_path / "out.ome.tif"):
        assert "note.txt" in (message := fail("correct", mosaic, "-o", out, *work)) or (
            "folder" in message
        )
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_a_simulation_comes_with_its_truth(tmp_path: Path) -> None:
    out = tmp_path / "sim-m2x2"
    succeed(
        "simulate", "mosaic", "--grid", "2x2", "--size", 64, "--references", 1, "--darks", 2,
        "-o", out,
    )  # fmt: skip
    names = tile_names(out)
    assert len(names) == 4 and tile_names(out / "darks") == ["dark_0001", "dark_0002"]
    truth = {
        part: {n: tifffile.imread(out / "truth" / part / f"{n}.tif") for n in names}
        for part in ("background", "transmission")
    }
    dark = np.mean([tifffile.imread(p) for p in (out / "darks").glob("*.tif")], axis=0)
    for name in names:
        expected = dark + truth["background"][name] * truth["transmission"][name]
        differs = np.abs(tifffile.imread(out / f"{name}.tif") / expected - 1)
        assert np.median(differs) < 0.02
    places = parse_tile_configuration(out / "truth" / "transmission" / "TileConfiguration.txt")
    nominal = parse_tile_configuration(out / "TileConfiguration.txt")
    assert places.keys() == nominal.keys() and places != nominal
    (y, x), (v, u) = (map(int, places[f"{name}.tif"]) for name in names[:2])  # left, right
    left, right = (truth["transmission"][name] for name in names[:2])
    top, bottom = max(y, v), min(y, v) + 64
    np.testing.assert_array_equal(
        left[top - y : bottom - y, u - x :], right[top - v : bottom - v, : 64 + x - u]
    )


def test_simulate_never_replaces_what_is_no_simulation(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("three years")
    for out in (mine, mine / ".", mine / "new" / ".."):
        assert "no simulation" in fail("simulate", "tile", "-o", out, "--size", 32, "--overwrite")
    mine.rename(tmp_path / "out.part")
    assert "out.part" in fail("simulate", "tile", "-o", tmp_path / "out", "--size", 32)
    assert (tmp_path / "out.part" / "thesis.txt").read_text() == "three years"
    for _ in range(2):
        succeed("simulate", "tile", "-o", tmp_path / "sim", "--size", 32, "--overwrite")


def test_training_says_where_the_model_is_and_how_to_go_on(tmp_path: Path) -> None:
    config, run_folder = tmp_path / "toy.yaml", tmp_path / "run"
    config.write_text(
        "network: {name: subpixel-unet, field_px: 32}\n"
        "data: {simulate_px: 32, sessions_per_batch: 1, validation_sessions: 1}\n"
        "steps: 1\nbatch: 2\nvalidate_every: 1\n"
    )
    printed = succeed("train", config, "--run", run_folder, "--device", "cpu")
    assert printed.strip().splitlines()[-1] == f"model: {run_folder / 'model.safetensors'}"
    assert "--resume" in fail("train", config, "--run", run_folder, "--device", "cpu")
