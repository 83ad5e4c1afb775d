"""A fit beside the output is believed if it is whole and this user's own."""

from __future__ import annotations

import os
import pickle
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_txm_bgcorr.io.output.fit_file import Fit, FitPlace, FitRefusedError, remove_fits

KEY = "0123456789abcdef" * 4
FIT = Fit(
    {"shape": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4), "lit": np.eye(3, dtype=bool),
     "none": np.empty((0, 2))},
    {"described": {"a": 0.1, "b": [None, True, "x"]}},
)  # fmt: skip
posix = pytest.mark.skipif(os.name != "posix", reason="owners and modes of POSIX")


@pytest.fixture
def place(tmp_path: Path) -> FitPlace:
    return FitPlace(tmp_path / "out.ome.zarr", KEY)


def test_arrays_and_values_come_back(place: FitPlace) -> None:
    ours = place.probe()
    assert place.read(ours) is None
    place.write(FIT)
    place.write(FIT)  # of two that fitted at once
    found = place.read(ours)
    assert found is not None and found.values == FIT.values
    assert found.arrays.keys() == FIT.arrays.keys()
    for name, one in FIT.arrays.items():
        assert found.arrays[name].dtype == one.dtype and found.arrays[name].flags.writeable
        np.testing.assert_array_equal(found.arrays[name], one)
    assert os.listdir(place.path.parent) == [place.path.name]  # no temporary names
    if os.name == "posix":
        assert stat.S_IMODE(place.path.stat().st_mode) == 0o600


def test_equal_fits_are_equal_bytes(place: FitPlace) -> None:
    place.write(FIT)
    before = place.path.read_bytes()
    place.write(Fit(dict(reversed(FIT.arrays.items())), FIT.values))
    assert place.path.read_bytes() == before


def test_a_fit_of_another_key_is_refused(place: FitPlace) -> None:
    other = FitPlace(place.out, KEY[:16] + "f" * 48)  # the same name
    assert other.path == place.path
    other.write(FIT)
    with pytest.raises(FitRefusedError, match="other options"):
        place.read(place.probe())


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def in_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def changed(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def change_file(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return change_file


@posix
@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (linked, "link"),
        (piped, "no plain file"),
        (in_a_folder, "no plain file"),
        (lambda path: path.chmod(0o622), "mode is 622"),
        (lambda path: path.chmod(0o644), "mode is 644"),
        (changed(lambda data: b""), "damaged"),
        (changed(lambda data: b"no fit"), "damaged"),
        (changed(lambda data: data[:-1]), "damaged"),
        (changed(lambda data: data[: len(data) // 2]), "damaged"),
        (changed(lambda data: data[:-5] + b"\0" + data[-4:]), "damaged"),
        (changed(lambda data: data + b"\0"), "damaged"),
    ],
)
def test_what_others_planted_or_damaged_is_refused(
    place: FitPlace, plant: Callable[[Path], None], said: str
) -> None:
    place.write(FIT)
    plant(place.path)
    with pytest.raises(FitRefusedError, match=said) as caught:
        place.read(place.probe())
    assert str(place.path) in str(caught.value) and "\n" not in str(caught.value)


@posix
def test_a_file_of_another_user_is_refused(place: FitPlace) -> None:
    place.write(FIT)
    ours = list(place.probe())
    ours[stat.ST_UID] += 1  # as if we were somebody else
    with pytest.raises(FitRefusedError, match="another user"):
        place.read(os.stat_result(ours))
    if os.geteuid() == 0:
        os.chown(place.path, 12345, -1)
        with pytest.raises(FitRefusedError, match="another user"):
            place.read(place.probe())


@posix
def test_the_file_that_was_opened_is_judged(
    place: FitPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is exchanged for another between the opening and the look at its owner."""
    place.write(FIT)
    place.path.chmod(0o666)
    opening = os.open

    def exchanging(path: os.PathLike[str], *given: int) -> int:
        descriptor = opening(path, *given)
        if Path(path) == place.path:
            place.path.unlink()
            place.path.write_bytes(b"")
            place.path.chmod(0o600)
        return descriptor

    ours = place.probe()
    monkeypatch.setattr(os, "open", exchanging)
    with pytest.raises(FitRefusedError, match="mode is 666"):
        place.read(ours)


def test_nothing_in_it_can_run(place: FitPlace) -> None:
    """A pickle in the place of the arrays, under a right hash, runs nothing."""
    import hashlib

    from napari_txm_bgcorr.io.output.fit_file import MAGIC

    class Bad:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return sys.exit, ("ran",)

    body = pickle.dumps(Bad())
    place.write(FIT)  # for its mode
    place.path.write_bytes(MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    with pytest.raises(FitRefusedError, match="another program"):
        place.read(place.probe())


def test_what_is_left_behind_is_removed_and_nothing_else(place: FitPlace) -> None:
    place.write(FIT)
    name, folder = place.path.name, place.path.parent
    for left in (f"{name}.solving-2-0123abcd", f"{name}.new-0123abcd"):
        (folder / left).touch()
    (folder / f"out.ome.zarr.fit-{'a' * 16}").touch()  # of other options, long ago
    kept = [
        "out.ome.zarr.fit-mine", f"{name}.bak", f"x{name}", f"{name}.solving-2",
        "out.ome.zarr.fit", f"outXome.zarr.fit-{'a' * 16}",
    ]  # fmt: skip
    for other in kept:
        (folder / other).touch()
    (folder / f"out.ome.zarr.fit-{'b' * 16}").mkdir()
    remove_fits(place.out)
    assert sorted(os.listdir(folder)) == sorted([*kept, f"out.ome.zarr.fit-{'b' * 16}"])
    remove_fits(folder / "nowhere" / "out")
