"""What the panel sees in dropped files: counts, pictures and what seems wrong."""

import threading
from pathlib import Path

import numpy as np
import pytest

from napari_txm_bgcorr.gui.train.data_scan import (
    THUMB_PX,
    THUMBS_EACH,
    Level,
    look_at,
    looks_wrong,
)
from napari_txm_bgcorr.gui.train.messages import Complaint, DataFound
from napari_txm_bgcorr.gui.train.session import DataItem
from napari_txm_bgcorr.io.reference_library import Library
from tests.gui.train.helpers import save_images


def look(*items):
    told = look_at(items, Level(), threading.Event())
    return [message for message in told if isinstance(message, (DataFound, Complaint))]


def ref(path, role="references", **more):
    return DataItem(Path(path), role, Path(path).name, **more)


def flat(level=5000.0, size=64, dtype=np.uint16):
    rng = np.random.default_rng(0)
    return rng.poisson(level, (size, size)).astype(dtype)


def test_a_good_reference_raises_no_warning():
    assert looks_wrong(flat(), "references", Level()) == ()


@pytest.mark.parametrize(
    ("image", "role", "words"),
    [
        (np.zeros((8, 8), np.uint16), "references", "empty"),
        (flat(8), "references", "looks dark"),
        (np.minimum(flat(), 5010).astype(np.uint16), "references", "saturated"),
        (flat(900).astype(np.float32) / 900, "references", "corrected already"),
        (flat(900), "samples", "looks like counts"),
        (np.full((8, 8), np.nan, np.float32), "samples", "empty"),
    ],
)
def test_what_looks_wrong_is_said(image, role, words):
    assert any(words in warning for warning in looks_wrong(image, role, Level()))


def test_images_are_compared_with_those_before():
    level = Level()
    assert looks_wrong(flat(5000), "references", level) == ()
    assert looks_wrong(flat(900), "references", level) == ("looks dark",)
    (words,) = looks_wrong(flat(5000, size=32), "references", level)
    assert words == "different size: 32 x 32, not 64 x 64"
    assert looks_wrong(flat(100), "darks", level) == ()  # darks may be dark


def test_files_folders_and_layers_are_counted_and_pictured(tmp_path):
    save_images(tmp_path / "one.npy", 3)
    folder = tmp_path / "folder"
    folder.mkdir()
    for k in range(2):
        save_images(folder / f"ref_{k}.npy", 1)
    layer = ref("layer", array=np.stack([flat()] * 40))
    one, many, shown = look(ref(tmp_path / "one.npy"), ref(folder), layer)
    assert (one.item.count, one.item.size, len(one.thumbs)) == (3, (32, 32), 3)
    assert many.item.count == 2
    assert shown.item.count == 40 and len(shown.thumbs) == THUMBS_EACH
    picture = shown.thumbs[0].picture
    assert picture.dtype == np.uint8 and max(picture.shape) <= THUMB_PX
    assert picture.max() == 255 and picture.min() == 0


def test_warnings_name_the_image(tmp_path):
    stack = np.stack([flat(), flat(100), flat()])
    (found,) = look(ref("mine", array=stack))
    assert found.item.warnings == ("mine 2: looks dark",)
    assert found.thumbs[1].warnings == ("looks dark",)


def test_one_bad_file_stops_nothing(tmp_path):
    (tmp_path / "bad.tif").write_bytes(b"no image")
    good = save_images(tmp_path / "good.npy")
    bad, fine, missing = look(
        ref(tmp_path / "bad.tif"), ref(good), ref(tmp_path / "gone.tif", "samples")
    )
    assert isinstance(bad, Complaint) and "bad.tif" in str(bad.error)
    assert isinstance(fine, DataFound)
    assert isinstance(missing, Complaint) and "\n" not in str(missing.error)


def test_real_files(txm_data):
    chip, tiles = look(
        ref(txm_data / "xradia" / "test_chip00.xrm"), ref(txm_data / "bl01b_sb_2x2", "samples")
    )
    assert chip.item.count == 1 and chip.item.size == (512, 512)
    assert tiles.item.count == 4
    assert any("looks like counts" in warning for warning in tiles.item.warnings)


def make_library(path, sizes):
    """A library as `txm-bgcorr harvest` writes it, one image of each size named."""
    library = Library.begin(path, {"pattern": "ref*"})
    for k, size in enumerate(sizes):
        name = f"2023/02/22/ref_{k}.xrm"
        library.add(flat(5000 + k, size=size), {"name": name, "date": "2023-02-22T10:00:00"})
    library.finish()
    return path


def test_a_library_is_one_item_and_its_odd_image_the_one_that_is_marked(tmp_path):
    library = make_library(tmp_path / "lib.zarr", [64, 32, 64, 64])  # the small one is read first
    (found,) = look(ref(library))
    assert (found.item.count, found.item.size, len(found.thumbs)) == (4, (0, 0), 4)
    assert found.item.warnings == ("2023/02/22/ref_1.xrm: different size: 32 x 32, not 64 x 64",)
    (same,) = look(ref(make_library(tmp_path / "same.zarr", [64, 64])))
    assert (same.item.size, same.item.warnings) == ((64, 64), ())


def test_an_archive_is_looked_through_to_its_bottom(tmp_path):
    for day in ("2023/02/22", "2023/03/01"):
        (tmp_path / day / "run").mkdir(parents=True)
        np.save(tmp_path / day / "run" / "ref_1.npy", flat())
    np.save(tmp_path / "2023" / "sample_1.npy", flat())
    (tmp_path / "2023" / "ref_torn.xrm").write_bytes(b"torn")
    (found,) = look(ref(tmp_path))
    assert found.item.count == 2  # the references, not the sample
    (warning,) = found.item.warnings
    assert warning.startswith("left out:") and "ref_torn.xrm" in warning
