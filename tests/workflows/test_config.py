"""Options of a correction: checked once, kept with every output, and good for a repetition."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from napari_txm_bgcorr.errors import ConfigError, ReadError
from napari_txm_bgcorr.workflows import CorrectionConfig, load_config
from napari_txm_bgcorr.workflows.correction import correct

MAIN = "from napari_txm_bgcorr.cli import main; main()"


def run(*words: object) -> str:
    command = [sys.executable, "-c", MAIN, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    folder = tmp_path / "tiles"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for k in range(4):
        image = rng.poisson(9000 * (1 + 0.05 * k), (40, 48)).astype(np.uint16)
        tifffile.imwrite(folder / f"t_{k}.tif", image)
    return folder


def pixels(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("c/*/*/*")}


configs = st.builds(
    CorrectionConfig,
    inputs=st.lists(st.sampled_from(["a.tif", "b c.xrm"]).map(Path), max_size=2).map(tuple),
    output=st.sampled_from([None, Path("out")]),
    method=st.sampled_from(["auto", "smooth", "captured"]),
    grid=st.sampled_from([None, (3, 4)]),
    pixel_nm=st.sampled_from([None, 29.5]),
    save=st.sampled_from([("raw",), ("background", "corrected")]),
    joint=st.sampled_from([None, True, False]),
    i0=st.sampled_from([None, 9000.0]),
    stitch=st.booleans(),
    overwrite=st.booleans(),
)


@given(configs)
def test_a_file_of_options_gives_them_back(
    tmp_path_factory: pytest.TempPathFactory, config: CorrectionConfig
) -> None:
    place = tmp_path_factory.mktemp("c") / "config.yaml"
    config.write(place)
    assert load_config(place) == config


def test_the_command_says_all_that_differs_from_the_defaults() -> None:
    config = CorrectionConfig(
        inputs=(Path("a b.tif"),), output=Path("out"), method="captured", combine="median",
        references=(Path("r1.tif"), Path("r2.tif")), grid=(2, 3), joint=False, i0=9000.0,
        overwrite=True,
    )  # fmt: skip
    assert shlex.split(config.command()) == [
        "txm-bgcorr", "correct", "a b.tif", "--output", str(Path("out").absolute()),
        "--method", "captured", "--reference", "r1.tif", "--reference", "r2.tif", "--grid", "2x3",
        "--save", "raw,background,corrected", "--no-joint", "--combine", "median",
        "--i0", "9000.0",
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["omezarr", "ometiff", "tiff"])
def test_an_output_repeats_itself_with_the_same_bits(
    tiles: Path, form: str, tmp_path: Path
) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    correct(
        CorrectionConfig(
            inputs=(tiles,), output=out, method="tile-median", joint=True, format=form
        )
    )
    repeated = load_config(out)
    assert repeated.output is None and repeated.method == "tile-median" and repeated.joint
    correct(repeated.replaced(output=again))
    for part in ("raw", "background", "corrected"):
        ours, theirs = (sorted(p for p in (o / part).rglob("*") if p.is_file())
                        for o in (out, again))  # fmt: skip
        if form == "ometiff":
            ours, theirs = [out / f"{part}.ome.tif"], [again / f"{part}.ome.tif"]
        assert len(ours) == len(theirs) > 0
        for one, other in zip(ours, theirs, strict=True):
            if one.suffix == ".tif":
                np.testing.assert_array_equal(tifffile.imread(one), tifffile.imread(other))
            elif one.name != "zarr.json":
                assert one.read_bytes() == other.read_bytes()


def test_the_command_that_an_output_holds_makes_it_again(tiles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.ome.zarr"
    run("correct", tiles, "-o", out, "--method", "smooth", "--save", "background,corrected")
    block = json.loads((out / "zarr.json").read_text())["attributes"]["txm_bgcorr"]
    before = pixels(out)
    words = shlex.split(block["provenance"]["command"])
    assert words[0] == "txm-bgcorr"
    run(*words[1:], "--overwrite")
    assert pixels(out) == before != {}


def test_options_of_the_command_line_come_before_those_of_the_file(
    tiles: Path, tmp_path: Path
) -> None:
    place = tmp_path / "c.yaml"
    said = run("correct", tiles, "--method", "envelope", "--save-config", place)
    assert str(place) in said and not (tmp_path / "out").exists()
    assert load_config(place) == CorrectionConfig(inputs=(tiles,), method="envelope")
    out = tmp_path / "out"
    run("correct", "--config", place, "-o", out, "--method", "smooth", "--save", "corrected")
    made = load_config(out)
    assert made.method == "smooth" and made.save == ("corrected",) and made.inputs == (tiles,)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"metod": "auto"}, "metod: no such option, perhaps method is meant"),
        ({"grid": [3]}, "grid"),
        ({"grid": [-2, -3]}, "--grid"),
        ({"pixel_nm": -1}, "pixel_nm '-1'"),
        ({"inputs": 3}, "inputs '3': .*a list, for example"),
        ({"i0": "much"}, "i0 'much'"),
        ({"save": ["od"]}, "--save od: not a part"),
        ({"format": "png"}, "--format png"),
        ({"combine": "median"}, "--combine median: not for --method auto"),
        ({"method": "smooth", "save": ["uncertainty"]}, "states none"),
        ({"shard": "3"}, "--shard 3"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        CorrectionConfig(**values)
    place = tmp_path / "c.yaml"
    place.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=rf"c\.yaml: .*{words}"):
        load_config(place)


@pytest.mark.parametrize(
    ("content", "words"),
    [("[1, 2]", "option: value"), ("a: [", "not valid YAML"), (None, "cannot be read")],
)
def test_a_file_without_options_is_refused(
    content: str | None, words: str, tmp_path: Path
) -> None:
    place = tmp_path / "c.yaml"
    if content is not None:
        place.write_text(content)
    with pytest.raises(ConfigError, match=words):
        load_config(place)


def test_a_folder_that_is_no_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no output of txm-bgcorr"):
        load_config(tmp_path)


def test_without_input_or_output_nothing_is_done(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="output: none"):
        correct(CorrectionConfig(inputs=(tmp_path,)))
    with pytest.raises(ConfigError, match="inputs: none"):
        correct(CorrectionConfig(output=tmp_path / "out"))


def test_a_file_may_hold_single_texts(tmp_path: Path) -> None:
    place = tmp_path / "c.yaml"
    place.write_text("inputs: a.tif\nsave: background, corrected\ngrid: 2x3\n")
    assert load_config(place) == CorrectionConfig(
        inputs=(Path("a.tif"),), save=("background", "corrected"), grid=(2, 3)
    )


def test_the_record_of_shares_repeats_the_whole(tiles: Path, tmp_path: Path) -> None:
    config = CorrectionConfig(inputs=(tiles,), output=tmp_path / "out", method="smooth")
    for share in ("1/2", "2/2"):
        correct(config.replaced(shard=share))
    block = json.loads((tmp_path / "out" / "zarr.json").read_text())["attributes"]["txm_bgcorr"]
    assert "--shard" not in block["provenance"]["command"]
    again = load_config(tmp_path / "out").replaced(output=tmp_path / "again")
    assert again.shard is None and correct(again)["results"][0]["complete"]
    assert pixels(tmp_path / "again") == pixels(tmp_path / "out")


def test_an_output_with_redone_tiles_is_not_repeated_silently(tiles: Path, tmp_path: Path) -> None:
    from napari_txm_bgcorr.workflows import redo_output

    out = tmp_path / "out"
    correct(CorrectionConfig(inputs=(tiles,), output=out, method="smooth"))
    redo_output(out, [1], method="envelope")
    with pytest.raises(ReadError, match="were redone"):
        load_config(out)
