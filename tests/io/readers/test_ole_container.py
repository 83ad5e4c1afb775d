"""The sector map gives the bytes that olefile gives, and only those that are asked for."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import olefile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.readers.byte_map import ByteMap
from napari_txm_bgcorr.io.readers.ole_container import open_container
from tests.helpers.ole2 import Blocks, write_ole2

ORDERS = [{}, {"interleave": True}, {"shuffle": 1}, {"shuffle": 2, "interleave": True}]


def random_streams(seed: int, sizes: list[int]) -> dict[str, bytes]:
    rng = np.random.default_rng(seed)
    return {
        f"Folder{i % 3}/Stream{i}" if i % 2 else f"Top{i}": rng.bytes(size)
        for i, size in enumerate(sizes)
    }


def assert_same_as_olefile(path: Path, **strictness: int) -> None:
    with olefile.OleFileIO(str(path), **strictness) as theirs, open_container(path) as ours:
        names = ["/".join(parts) for parts in theirs.listdir()]
        assert sorted(name.lower() for name in names) == sorted(ours.names)
        for name in names:
            found = ours.stream(name)
            assert found is not None
            assert found.read() == theirs.openstream(name).read(), name
            assert found.size == theirs.get_size(name)


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("sector", [512, 4096])
def test_every_stream_equals_olefiles(tmp_path: Path, sector: int, order: dict[str, int]) -> None:
    sizes = [0, 1, 63, 64, 65, 511, 512, 4095, 4096, 4097, 70_000, *range(100, 400, 10)]
    streams = random_streams(3, sizes)
    path = write_ole2(tmp_path / "a.xrm", streams, sector=sector, **order)
    assert_same_as_olefile(path, raise_defects=olefile.DEFECT_UNSURE)
    with open_container(path) as ole:
        for name, content in streams.items():
            assert ole.field(name.upper(), 1 << 30) == content


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=40),
    sector=st.sampled_from([512, 4096]),
    order=st.sampled_from(ORDERS),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    sizes: list[int],
    sector: int,
    order: dict[str, int],
) -> None:
    streams = random_streams(seed, sizes)
    path = write_ole2(tmp_path_factory.getbasetemp() / "b.xrm", streams, sector=sector, **order)
    with open_container(path) as ole:
        assert {name.lower() for name in streams} == ole.names
        assert all(ole.field(name, 1 << 30) == content for name, content in streams.items())


@pytest.mark.parametrize("name", ["test_chip00.xrm", "txrm_test_chip_tomo.txrm"])
def test_real_files_equal_olefiles(txm_data: Path, name: str) -> None:
    assert_same_as_olefile(txm_data / "xradia" / name)


def test_difat_beyond_seven_megabytes(tmp_path: Path) -> None:
    marks = {0: b"first", 9_000_000: b"middle", 17_999_990: b"last"}
    size, pieces, at = 18_000_000, [], 0
    for offset, mark in marks.items():
        pieces += [offset - at, mark]
        at = offset + len(mark)
    pieces.append(size - at)
    path = write_ole2(tmp_path / "c.xrm", {"Big": Blocks(size, lambda: pieces), "Small": b"x"})
    with olefile.OleFileIO(str(path), raise_defects=olefile.DEFECT_UNSURE) as theirs:
        assert theirs.num_difat_sectors > 1
        whole = theirs.openstream("Big").read()
    with open_container(path) as ole:
        big = ole.stream("big")
        assert big is not None and big.starts.size == 1  # neighbours are joined
        assert big.read() == whole
        assert all(big.read(offset, len(mark)) == mark for offset, mark in marks.items())
        assert ole.field("Small", 9) == b"x"


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rows_are_the_slices_of_the_stream(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.xrm"
    content = np.random.default_rng(5).bytes(40_000)
    if not path.exists():
        write_ole2(path, {"Rows": content}, shuffle=4)
    stride = data.draw(st.integers(1, 3000))
    width = data.draw(st.integers(0, stride))
    rows = data.draw(st.integers(1, 12))
    first = data.draw(st.integers(0, 40_000 - stride * (rows - 1) - width))
    expected = b"".join(content[first + i * stride :][:width] for i in range(rows))
    with open_container(path) as ole:
        found = ole.stream("Rows")
    assert found is not None
    assert found.read_rows(first, stride, width, rows) == expected
    pieces = list(found.pieces(first, stride, width, rows))
    assert sum(length for _, length in pieces) == width * rows  # nothing else is touched


def test_a_map_outlives_the_file_and_travels(tmp_path: Path) -> None:
    path = write_ole2(tmp_path / "a.xrm", {"A": bytes(range(256)) * 100}, shuffle=1)
    with open_container(path) as ole:
        found = ole.stream("A")
    copy = pickle.loads(pickle.dumps(found))
    assert copy.read(1000, 7) == (bytes(range(256)) * 100)[1000:1007]
    assert copy.read(25_590) == (bytes(range(256)) * 100)[25_590:]
    with pytest.raises(ReadError, match="25601 is asked for"):
        copy.read_rows(0, 1, 25_601, 1)


def test_file_cut_off_or_gone_after_opening(tmp_path: Path) -> None:
    path = write_ole2(tmp_path / "a.xrm", {"A": bytes(20_000)})
    with open_container(path) as ole:
        found = ole.stream("A")
    assert isinstance(found, ByteMap)
    with path.open("r+b") as file:
        file.truncate(9000)
    with pytest.raises(ReadError, match=r"a\.xrm: A: the file has become shorter"):
        found.read()
    path.unlink()
    with pytest.raises(ReadError, match=r"a\.xrm: A: cannot be read"):
        found.read()


def sector_table_at(path: Path) -> int:
    """Offset of the first sector of the sector table."""
    with path.open("rb") as file:
        header = file.read(512)
    return (struct.unpack_from("<I", header, 76)[0] + 1) * 512


def first_sector(path: Path, name: str) -> int:
    with olefile.OleFileIO(str(path)) as ole:
        return ole.direntries[ole._find(name)].isectStart


def poke(path: Path, offset: int, *values: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(f"<{len(values)}I", *values))


@pytest.mark.parametrize(
    ("step", "message"),
    [(0, "circle"), (-3, "circle"), (100_000, "beyond the file"), (None, "beyond the file")],
)
def test_broken_chains_are_refused(tmp_path: Path, step: int | None, message: str) -> None:
    path = write_ole2(tmp_path / "a.xrm", {"A": bytes(20_000), "B": bytes(5000)})
    sector = first_sector(path, "A") + 10
    value = 0xFFFFFFFE if step is None else sector + step
    poke(path, sector_table_at(path) + 4 * sector, value)
    with open_container(path) as ole:
        with pytest.raises(ReadError, match=message):
            ole.stream("A")
        assert ole.field("B", 9000) == bytes(5000)  # the others are not lost


def test_circle_in_the_directory_ends(tmp_path: Path) -> None:
    path = write_ole2(tmp_path / "a.xrm", {f"S{i}": b"x" for i in range(20)})
    poke(path, sector_table_at(path), 0)  # the directory starts at sector 0
    with (
        pytest.raises(ReadError, match="directory: its sectors run in a circle"),
        open_container(path),
    ):
        pass


def test_root_within_itself_ends(tmp_path: Path) -> None:
    path = write_ole2(tmp_path / "a.xrm", {"A": b"x", "B/C": b"y"})
    with open_container(path) as ole:
        folder = ole.direntries[ole._find("B")].sid
    poke(path, 512 + 128 * folder + 76, 0)  # child of B: the root entry
    with open_container(path) as ole:
        assert "a" in ole.names


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, 0, "no OLE2 signature"),
        (28, 0xFFFF_FFFE, "byte order"),
        (30, 0xFFFF_FFFF, "sectors of 2\\^65535"),
        (48, 0xFFFF_FF00, "directory: sector"),
        (76, 0x7FFF_FFFF, "list of the sector table"),
        (76, 0xFFFF_FFFF, "beyond the file"),
    ],
)
def test_damaged_header(tmp_path: Path, offset: int, value: int, message: str) -> None:
    path = write_ole2(tmp_path / "a.xrm", {"A": bytes(20_000)})
    poke(path, offset, value)
    with pytest.raises(ReadError, match=message), open_container(path):
        pass


def test_open_needs_little_memory(tmp_path: Path) -> None:
    size = 400 << 20  # a hole in the file: no disk is used
    path = write_ole2(tmp_path / "a.xrm", {"A": Blocks(size, lambda: [size])}, interleave=True)
    tracemalloc.start()
    with open_container(path) as ole:
        found = ole.stream("A")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found is not None and found.size == size
    assert peak < 16 << 20  # a table of 3 MB, and a few arrays of its length
