"""Bars on standard error: one at a time, sentences whole, nothing where it is quiet."""

from __future__ import annotations

from typing import Any

import pytest

from napari_txm_bgcorr.core import SILENT
from napari_txm_bgcorr.workflows import progress_bars
from napari_txm_bgcorr.workflows.progress_bars import Bars


class Fake:
    """A bar that remembers; sentences go to the class."""

    made: list[Fake]
    said: list[tuple[str, Any]]

    def __init__(self, desc: str, total: int | None, initial: int, leave: bool) -> None:
        self.desc, self.total, self.n, self.leave = desc, total, initial, leave
        self.closed = False
        self.made.append(self)

    def update(self, more: int) -> None:
        assert not self.closed
        self.n += more

    def close(self) -> None:
        self.closed = True

    @classmethod
    def write(cls, sentence: str, file: Any) -> None:
        cls.said.append((sentence, file))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    kind = type("Bar", (Fake,), {"made": [], "said": []})
    monkeypatch.setattr(progress_bars, "tqdm", kind)
    return kind


def test_each_stage_has_a_bar_that_ends_with_it(fake: type[Fake]) -> None:
    with Bars(quiet=False) as bars:
        for done in range(1, 4):
            bars.progress.step("fitting", done, 3)
        (first,) = fake.made
        assert (first.desc, first.n, first.total, first.closed) == ("fitting", 3, 3, False)
        bars.progress.step("tiles", 5, 9)  # goes on where an earlier run stopped
        assert first.closed and len(fake.made) == 2
        assert (fake.made[1].n, fake.made[1].total) == (5, 9)
    assert all(bar.closed for bar in fake.made)


def test_an_unknown_total_is_none_and_may_become_known(fake: type[Fake]) -> None:
    with Bars(quiet=False) as bars:
        bars._tell("tiles", 1, 0)
        assert fake.made[0].total is None
        bars._tell("tiles", 2, 7)
        assert (fake.made[0].total, fake.made[0].n) == (7, 2)


def test_work_that_goes_back_is_shown_so(fake: type[Fake]) -> None:
    with Bars(quiet=False) as bars:
        for done in (5, 2):
            bars._tell("tiles", done, 7)
        assert fake.made[0].n == 2


def test_a_bar_is_closed_though_the_work_fails(fake: type[Fake]) -> None:
    with pytest.raises(ValueError, match="x"), Bars(quiet=False) as bars:
        bars._tell("tiles", 1, 3)
        raise ValueError("x")
    assert fake.made[0].closed


def test_sentences_go_to_standard_error(fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = object()
    monkeypatch.setattr(progress_bars.sys, "stderr", stream)
    Bars(quiet=False).progress.say("a note")
    assert fake.said == [("a note", stream)]


def test_quiet_shows_nothing(fake: type[Fake]) -> None:
    with Bars(quiet=True) as bars:
        assert bars.progress is SILENT
        bars.progress.step("tiles", 1, 3)
    assert fake.made == [] and fake.said == []
