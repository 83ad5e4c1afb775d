"""Of several processes one works, the others wait; none waits for one that is dead."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from napari_txm_bgcorr.io.output.fit_file import FitPlace
from napari_txm_bgcorr.workflows.turns import Pace, Turn

PACE = Pace(beat_s=0.05, dead_s=30, look_s=0.02, settle_s=0.02)
KEY = "ab" * 32


@pytest.fixture
def place(tmp_path: Path) -> FitPlace:
    return FitPlace(tmp_path / "out", KEY)


def plant(place: FitPlace, number: int, state: bytes, age_s: float = 0) -> Path:
    """The file of a process that touches it no more."""
    path = place.path.with_name(f"{place.path.name}.solving-{number}-0123abcd")
    path.write_bytes(state)
    path.chmod(0o600)
    when = time.time() - age_s
    os.utime(path, (when, when))
    return path


def test_one_alone_works_and_leaves_nothing(place: FitPlace) -> None:
    with Turn(place, 3, PACE) as turn:
        (own,) = place.path.parent.iterdir()
        assert own.name.startswith(f"{place.path.name}.solving-3-")
        assert own.read_bytes() == b"w"
        assert turn.take() and turn.take()
        assert own.read_bytes() == b"s"
        before = own.stat().st_mtime_ns
        while own.stat().st_mtime_ns == before:  # it is touched
            time.sleep(0.01)
    assert list(place.path.parent.iterdir()) == []


def test_the_lowest_number_goes_first_but_not_before_one_at_work(place: FitPlace) -> None:
    with Turn(place, 10, PACE) as late, Turn(place, 9, PACE) as early:
        assert not late.take() and late.worker == 9  # 9 before 10: by number
        assert early.take()
        with Turn(place, 1, PACE) as first:
            assert not first.take() and first.worker == 9
    with Turn(place, 1, PACE) as first:
        assert first.take()


def test_of_two_that_begin_at_once_one_steps_back(
    place: FitPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither has seen the other when they say that they are at work."""
    with Turn(place, 2, PACE) as late, Turn(place, 1, PACE) as early:
        looks = iter([lambda: iter(()), late._others])
        monkeypatch.setattr(late, "_others", lambda: next(looks)())
        early._say(b"s")
        assert not late.take() and late.worker == 1
        assert late._path.read_bytes() == b"w"
        assert early.take()


def test_many_that_begin_together_end_with_one_after_the_other(place: FitPlace) -> None:
    """Threads stand for processes: each works once, as nobody hands anything on."""
    worked: list[int] = []
    together = threading.Barrier(6)

    def one(number: int) -> None:
        with Turn(place, number, PACE) as turn:
            together.wait()
            while not turn.take():
                turn.wait()
            worked.append(number)

    threads = [threading.Thread(target=one, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(worked) == list(range(6))
    assert list(place.path.parent.iterdir()) == []


@pytest.mark.parametrize("state", [b"s", b"w", b""])
def test_one_that_was_killed_is_given_up(place: FitPlace, state: bytes) -> None:
    dead = plant(place, 1, state, age_s=31)
    with Turn(place, 2, PACE) as turn:
        assert turn.take()
    assert dead.exists()  # it goes with the others once the output is complete


@pytest.mark.parametrize("age_s", [0, -1e6])
def test_silence_counts_whatever_the_clocks_say(place: FitPlace, age_s: float) -> None:
    """Its time is now, or lies in the future as after a clock was set back."""
    plant(place, 1, b"s", age_s)
    with Turn(place, 2, Pace(beat_s=0.05, dead_s=0.3, look_s=0.02, settle_s=0.02)) as turn:
        assert not turn.take()
        for _ in range(100):
            turn.wait()
            if turn.take():
                break
        else:
            pytest.fail("waits for ever")


def test_time_is_the_file_systems(place: FitPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(place, 1, b"s")
    monkeypatch.setattr(time, "time", lambda: 4e9)  # this machine's clock is wrong
    with Turn(place, 2, PACE) as turn:
        assert not turn.take()


def test_what_is_no_file_of_this_user_counts_for_nothing(
    place: FitPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = place.path.name
    place.path.with_name(f"{name}.solving-1-0123abcd").mkdir()
    if os.name == "posix":
        os.mkfifo(place.path.with_name(f"{name}.solving-0-0123abcd"))
        target = plant(place, 5, b"s").rename(place.path.with_name("target"))
        place.path.with_name(f"{name}.solving-1-abcd0123").symlink_to(target)
    if os.name == "posix" and os.geteuid() == 0:
        os.chown(plant(place, 2, b"s"), 12345, -1)
    with Turn(place, 3, PACE) as turn:
        assert turn.take()


def test_its_file_may_be_removed(place: FitPlace) -> None:
    """As by the one that completes the output."""
    with Turn(place, 1, PACE) as turn:
        turn._path.unlink()
        time.sleep(2 * PACE.beat_s)
        assert list(place.path.parent.iterdir()) == []  # not made again
        assert turn.take()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError), Turn(FitPlace(tmp_path / "no" / "out", KEY), 1, PACE):
        pass
