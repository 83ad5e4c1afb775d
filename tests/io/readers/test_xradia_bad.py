"""Whatever is done to an Xradia file, a valid scan or one line of error comes out."""

from __future__ import annotations

import json
import struct
import tracemalloc
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.readers.ole_container import open_container
from napari_txm_bgcorr.io.readers.xradia import can_read, read
from tests.helpers.ole2 import write_ole2, write_xradia

TILES = np.random.default_rng(1).integers(1, 60_000, (6, 40, 48)).astype("u2")


def i4(value: int) -> bytes:
    return struct.pack("<i", value)


def refused(path: Path) -> str:
    with pytest.raises(ReadError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert "; " in message  # the remedy
    return message


LIES: list[tuple[dict[str, bytes | None], str]] = [
    ({"ImageInfo/ImageWidth": None}, "ImageInfo/ImageWidth is missing"),
    ({"ImageInfo/ImageHeight": b"\1\0"}, "ImageInfo/ImageHeight is missing"),
    ({"ImageInfo/ImageWidth": i4(0)}, "ImageInfo/ImageWidth is 0"),
    ({"ImageInfo/ImageHeight": i4(-40)}, "ImageInfo/ImageHeight is -40"),
    ({"ImageInfo/ImageWidth": i4(49)}, "ImageData1/Image1 has 3840 bytes"),
    ({"ImageInfo/ImageWidth": i4(24)}, "ImageData1/Image1 has 3840 bytes"),
    ({"ImageInfo/ImageWidth": i4(2**31 - 1)}, "ImageData1/Image1 has 3840 bytes"),
    (
        {"ImageInfo/ImageWidth": i4(65536), "ImageInfo/ImageHeight": i4(32768)},
        "32768 x 65536 px",
    ),
    ({"ImageInfo/DataType": i4(99)}, "ImageInfo/DataType is 99"),
    ({"ImageInfo/DataType": i4(12)}, "ImageInfo/DataType is 12"),
    ({"ImageInfo/DataType": i4(10)}, "px of float32 take 7680"),
    ({"ImageInfo/DataType": None, "ImageInfo/ImageWidth": i4(47)}, "DataType is missing"),
    ({"ImageInfo/ImagesTaken": i4(7)}, "ImageInfo/ImagesTaken is 7, but ImageData1/Image7"),
    (
        {"ImageInfo/ImagesTaken": None, "ImageInfo/NoOfImages": i4(2**31 - 1)},
        "ImageInfo/NoOfImages is 2147483647, but ImageData1/Image7",
    ),
    ({"ImageData1/Image1": None}, "ImageData1/Image1 is missing"),
    ({"ImageData1/Image3": None}, "ImageData1/Image3 is missing"),
    ({"ImageData1/Image3": b"short"}, "ImageData1/Image3 has 5 bytes"),
    ({"ImageData1/Image3": b""}, "ImageData1/Image3 has 0 bytes"),
    (
        {"ImageInfo/MosiacRows": i4(-1), "ImageInfo/MosiacColumns": i4(2)},
        "MosiacRows and MosiacColumns are -1 and 2",
    ),
    (
        {"ImageInfo/MosiacRows": i4(2**30), "ImageInfo/MosiacColumns": i4(2**30),
         "ImageInfo/MosiacMode": i4(1)},
        "at most 100000",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("lies", "message"), LIES, ids=[m for _, m in LIES])
def test_lies_in_the_header(tmp_path: Path, lies: dict[str, bytes | None], message: str) -> None:
    path = write_xradia(tmp_path / "a.txrm", TILES, replaced=lies)
    tracemalloc.start()
    assert message in refused(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 << 20


def test_canvas_that_cannot_be_cut(tmp_path: Path) -> None:
    lies = {"ImageInfo/MosiacColumns": i4(5)}
    path = write_xradia(tmp_path / "a.xrm", TILES, grid=(2, 3), canvas=True, replaced=lies)
    assert "80 x 144 px cannot be cut into 2 x 5" in refused(path)


def test_no_file_empty_file_folder_and_strangers(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "nothing.xrm")
    assert "is a folder" in refused(tmp_path)
    for name, content, message in [
        ("empty.xrm", b"", "the file is empty"),
        ("text.xrm", b"hello" * 500, "no OLE2 signature"),
        ("magic.xrm", bytes.fromhex("d0cf11e0a1b11ae1"), "only 8 bytes"),
        ("zeros.xrm", bytes.fromhex("d0cf11e0a1b11ae1") + bytes(5000), "byte order"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        assert message in refused(path)
    word = write_ole2(tmp_path / "word.xrm", {"WordDocument": bytes(9000), "1Table": b"x"})
    assert "ImageInfo/ImageHeight is missing" in refused(word)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_pixel_size_that_is_none(tmp_path: Path, value: float) -> None:
    path = write_xradia(tmp_path / "a.txrm", TILES, pixel_um=value, energy_ev=[value])
    scan = read(path)
    assert scan.pixel_nm is None and scan.energy_ev is None
    with pytest.raises(ReadError, match="give a positive number"):
        read(path, pixel_nm=value)
    with pytest.raises(ReadError, match="at least 1"):
        read(path, grid=(0, 3))


def test_a_damaged_optional_stream_costs_only_itself(tmp_path: Path) -> None:
    path = write_xradia(tmp_path / "a.txrm", np.repeat(TILES, 20, axis=0))  # dates: 4800 bytes
    with open_container(path) as ole:
        entry = ole._entries["imageinfo/date"]
        chain = ole.first_dir_sector
        place = (chain + 1) * 512 + entry.sid * 128
    with path.open("r+b") as file:
        file.seek(place + 116)
        file.write(struct.pack("<I", 0x00FFFFFF))
    scan = read(path)
    assert scan.times is None and len(scan) == 120
    assert any("ImageInfo/Date cannot be read" in note for note in scan.notes)


# ---- mutations ----------------------------------------------------------------------------


def seeds(folder: Path, data: Path | None) -> dict[str, Path]:
    """Files to damage: ours of every kind, and the real ones where they are at hand."""
    made = {
        "canvas": {"grid": (2, 3), "canvas": True, "reference": TILES[0], "shuffle": 1},
        "tiles": {"grid": (2, 3), "version": 5.0, "reference": TILES[0], "planned": 6},
        "series": {"sector": 4096, "angles_deg": range(6)},
        "fragments": {"interleave": True, "shuffle": 3},
    }
    files = {}
    for name, facts in made.items():
        tiles = np.repeat(np.repeat(TILES, 2, 1), 2, 2) if name == "fragments" else TILES
        files[name] = write_xradia(folder / f"{name}.seed", tiles, **facts)
    if data is not None:
        files["chip"] = data / "xradia" / "test_chip00.xrm"
        files["tomo"] = data / "xradia" / "txrm_test_chip_tomo.txrm"
    return files


@lru_cache(maxsize=16)
def risky_places(path: Path) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """Content of a file, and the (offset, length) of what steers the reader in it."""
    places = [(0, 80), (0, 512)]
    with open_container(path) as ole:
        size = ole.sectorsize
        header = path.read_bytes()[:512]
        starts, lengths = ole._chains.walk(ole.first_dir_sector, None, "")
        places += [((s + 1) * size, n * size) for s, n in zip(starts, lengths, strict=True)]
        places += [((int(s) + 1) * size, size) for s in ole._table_sectors(header, 109)]
        for name in ole.names:
            if name.startswith(("imageinfo/", "referencedata/", "version")):
                found = ole.stream(name)
                places += list(found.pieces(0, 1, min(found.size, 8), 1)) if found else []
    return path.read_bytes(), tuple(places)


@st.composite
def damage(draw: st.DrawFn, content: bytes, places: tuple[tuple[int, int], ...]) -> bytes:
    """A mutated copy: words in the risky places replaced, and sometimes the end cut off."""
    copy = bytearray(content)
    word = st.sampled_from([0, 1, 5, 7, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE])
    for _ in range(draw(st.integers(0, 6))):
        offset, length = draw(st.sampled_from(places))
        at = min(offset + draw(st.integers(0, max(length - 1, 0))), len(copy) - 4)
        if draw(st.booleans()):
            at -= at % 4
            struct.pack_into("<I", copy, at, draw(word | st.integers(0, 2**32 - 1)))
        else:
            copy[at] = draw(st.integers(0, 255))
    if draw(st.integers(0, 3)) == 0:
        del copy[draw(st.integers(0, len(copy))) :]
    return bytes(copy)


def outcome(path: Path) -> Scan | str:
    """A scan whose every tile has been read, or the one line of a `ReadError`."""
    can_read(path)
    try:
        scan = read(path)
        assert scan.kind in ("single", "mosaic", "series")
        json.dumps(scan.facts())
        count, *shape = scan.tiles.shape
        for i in range(min(count, 500)):
            assert list(scan.tiles[i].shape) == shape
        if scan.flats is not None:
            assert list(scan.flats[0].shape) == shape
        assert scan.positions_px is None or np.isfinite(scan.positions_px).all()
        return scan
    except ReadError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
        return str(error)


def test_fuzz(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    try:
        data: Path | None = request.getfixturevalue("txm_data")
    except pytest.skip.Exception:
        data = None
    files = seeds(tmp_path, data)
    target = tmp_path / "damaged.xrm"
    kinds: dict[str, int] = {"scan": 0, "error": 0}

    @settings(max_examples=200, deadline=None, database=None)
    @given(name=st.sampled_from(sorted(files)), draw=st.data())
    def run(name: str, draw: st.DataObject) -> None:
        content, places = risky_places(files[name])
        target.write_bytes(draw.draw(damage(content, places)))
        tracemalloc.start()
        result = outcome(target)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 100 << 20
        kinds["scan" if isinstance(result, Scan) else "error"] += 1

    run()
    assert min(kinds.values()) > 20, kinds  # both ways are exercised


@pytest.mark.parametrize("name", ["canvas", "tiles", "series", "fragments"])
def test_cut_off_anywhere(tmp_path: Path, name: str) -> None:
    """A file whose last byte matters is never read when cut; cut in the padding, it may be."""
    content = seeds(tmp_path, None)[name].read_bytes()
    target = tmp_path / "cut.xrm"
    for keep in np.linspace(0, len(content) - 5000, 60).astype(int):
        target.write_bytes(content[:keep])
        result: Any = outcome(target)
        assert isinstance(result, str) or np.array_equal(
            result.tiles[:], TILES[: len(result)]
        )  # what is read is right


@pytest.mark.parametrize("name", ["test_chip00.xrm", "txrm_test_chip_tomo.txrm"])
def test_real_files_cut_off(tmp_path: Path, txm_data: Path, name: str) -> None:
    content = (txm_data / "xradia" / name).read_bytes()
    whole = read(txm_data / "xradia" / name)
    target = tmp_path / name
    for keep in np.linspace(0, len(content) - 1, 40).astype(int):
        target.write_bytes(content[:keep])
        result: Any = outcome(target)
        if not isinstance(result, str):
            np.testing.assert_array_equal(result.tiles[:], whole.tiles[:])
