"""What a training learns from is found under files, folders and pairs of folders."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_txm_bgcorr.cli.options import repeated
from napari_txm_bgcorr.core.training_images import ImageStack, TrainingData
from napari_txm_bgcorr.errors import ConfigError, ReadError
from napari_txm_bgcorr.io.training_images import read_training_data
from napari_txm_bgcorr.training.config import load_config
from napari_txm_bgcorr.workflows.train import data_overrides
from tests.helpers.ole2 import write_xradia


def image(level: int, size: int = 32) -> np.ndarray:
    return np.full((size, size), level, np.uint16)


@pytest.fixture
def folder(tmp_path):
    for k in range(2):
        write_xradia(
            tmp_path / f"ref_{k}.xrm", image(1000 + k)[None], dates=[f"02/2{k + 2}/23 10:00:00"]
        )
    tifffile.imwrite(tmp_path / "ref_b4.tif", image(500, 16))
    tifffile.imwrite(tmp_path / "tile_1.tif", image(7))
    (tmp_path / "ref_bad.tif").write_bytes(b"nonsense")
    return tmp_path


def test_a_folder_gives_its_references_of_any_size_and_names_what_is_bad(folder):
    data = read_training_data([folder])
    assert data.counts() == {"references": 3, "samples": 0, "pairs": 0}
    assert sorted(s.images.shape[1] for s in data.references) == [16, 32, 32]
    assert {s.sessions[0] for s in data.references} >= {"2023-02-22", "2023-02-23"}
    assert len(data.notes) == 1 and "ref_bad.tif" in data.notes[0]
    with pytest.raises(ReadError, match=r"ref_bad\.tif"):
        read_training_data([folder / "ref_bad.tif"])  # named by the user: no silence


def test_arrays_saved_from_layers_and_darks(folder):
    np.save(folder / "layer.npy", np.stack([image(3000), image(3001)]))
    tifffile.imwrite(folder / "dark.tif", image(100))
    data = read_training_data(
        [folder / "layer.npy", folder / "ref_b4.tif"], darks=[folder / "dark.tif"]
    )
    layer, other = data.references
    assert len(layer) == 2 and layer.dark is not None and float(layer.dark[0, 0]) == 100
    assert other.dark is None  # of another size
    np.save(folder / "cube.npy", np.zeros((2, 2, 4, 4)))
    with pytest.raises(ReadError, match="save images as"):
        read_training_data([folder / "cube.npy"])


def test_pairs_match_by_name_or_by_order(tmp_path):
    for role, level in (("raw", 10), ("background", 20)):
        (tmp_path / role).mkdir()
        for k in (1, 2, 3):
            tifffile.imwrite(tmp_path / role / f"t{k}.tif", image(level + k))
        tifffile.imwrite(tmp_path / f"{role}.tif", np.stack([image(level), image(level + 1)]))
    (tmp_path / "background" / "t2.tif").unlink()
    data = read_training_data(pairs=[(tmp_path / "raw", tmp_path / "background")])
    assert data.counts()["pairs"] == 2 and "no partner" in data.notes[0]
    for raw, background in zip(data.raws, data.backgrounds, strict=True):
        assert int(background.images[0][0, 0]) - int(raw.images[0][0, 0]) == 10
    stacks = read_training_data(pairs=[(tmp_path / "raw.tif", tmp_path / "background.tif")])
    assert stacks.counts()["pairs"] == 2
    with pytest.raises(ReadError, match="same size"):
        read_training_data(pairs=[(tmp_path / "raw.tif", tmp_path / "raw" / "t1.tif")])


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ReadError, match="no readable references"):
        read_training_data([tmp_path])


def test_facts_must_fit_the_images():
    with pytest.raises(ConfigError, match="one of each"):
        ImageStack(np.zeros((2, 4, 4)), ("a",), ("d", "d"))
    one = ImageStack(np.zeros((1, 4, 4)), ("a",), ("d",))
    with pytest.raises(ConfigError, match="do not match"):
        TrainingData(raws=(one,))


def test_options_take_several_values():
    words = ["fine-tune", "--references", "a", "b", "--run", "r", "--pairs", "x", "y", "--resume"]
    assert repeated(words, ["--references", "--pairs"]) == [
        "fine-tune", "--references", "a", "--references", "b", "--run", "r",
        "--pairs", "x", "--pairs", "y", "--resume",
    ]  # fmt: skip


def test_paths_of_the_command_line_become_settings(folder):
    given = data_overrides([str(folder)], None, [str(folder), str(folder / "ref_0.xrm")], None)
    settings = load_config("fine-tune", given)
    assert settings.data.references == (str(folder),)
    assert settings.data.pairs == ((str(folder), str(folder / "ref_0.xrm")),)
    with pytest.raises(ConfigError, match="no such file"):
        data_overrides(["nowhere"], None, None, None)
    with pytest.raises(ConfigError, match="no background"):
        data_overrides(None, None, [str(folder)], None)
