"""Loggers never end a training; what they are sent fits what they take."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.training.run import loggers
from napari_txm_bgcorr.training.run.loggers import LOGGERS, PARAMS_AT_ONCE, build_loggers
from tests.training.toy import toy_config


class Frail:
    """Remembers calls; fails at those that are named."""

    def __init__(self, *fails: str) -> None:
        self.fails, self.calls = set(fails), list[str]()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            raise OSError(f"{name} failed")

    def open(self) -> None:
        self._call("open")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._call("log")

    def picture(self, step: int, images: Mapping[str, Any]) -> None:
        self._call("picture")

    def close(self, state: str) -> None:
        self._call(f"close {state}")


def built(monkeypatch: pytest.MonkeyPatch, **made: Frail) -> tuple[list[Any], list[str]]:
    for name, logger in made.items():
        monkeypatch.setitem(LOGGERS, name, lambda run, config, step, _l=logger: _l)
    said: list[str] = []
    config = SimpleNamespace(loggers=tuple(made))
    return build_loggers(Path("run"), config, 0, said.append), said  # type: ignore[arg-type]


@pytest.mark.parametrize("fails", ["open", "log", "picture"])
def test_after_a_failure_it_is_told_nothing_but_the_end(
    monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    frail, sound = Frail(fails), Frail()
    both, said = built(monkeypatch, frail=frail, sound=sound)
    for _ in range(2):
        for logger in both:
            logger.log(1, {})
            logger.picture(1, {})
    for logger in both:
        logger.close("finished")
    assert len(said) == 1 and said[0].startswith(f"frail: {fails} failed; the training goes on")
    order = ["open", "log", "picture"]
    assert frail.calls == [*order[: order.index(fails) + 1], "close finished"]
    assert sound.calls == ["open", "log", "picture", "log", "picture", "close finished"]


def test_a_failing_end_is_told_once_and_only_where_nothing_was_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (late,), said = built(monkeypatch, late=Frail("close failed"))
    late.close("failed")
    assert len(said) == 1
    (early,), said = built(monkeypatch, early=Frail("open", "close failed"))
    early.close("failed")
    assert len(said) == 1


@given(st.text(), st.integers(0, 500))
def test_a_sentence_is_one_bounded_line_without_passwords(text: str, length: int) -> None:
    got = loggers._sentence(ValueError(f"{text}{'x' * length} http://me:pa55@host/a \n b"))
    assert len(got) <= 300 and "\n" not in got and "me:pa55" not in got


def test_an_error_without_text_is_named() -> None:
    assert loggers._sentence(TimeoutError()) == "TimeoutError"


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_an_even_picture_is_no_division_by_zero(value: float) -> None:
    grey = loggers._grey(np.full((5, 6), value, np.float32))
    assert grey.dtype == np.uint8 and (grey == 0).all()


def test_a_picture_spans_black_to_white_whatever_its_level() -> None:
    ramp = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    grey = loggers._grey(ramp)
    assert (grey.min(), grey.max()) == (0, 255)
    assert (np.diff(grey.ravel().astype(int)) >= 0).all()
    np.testing.assert_allclose(loggers._grey(ramp * 3 + 9), grey, atol=1)


def test_one_hot_pixel_does_not_darken_a_picture() -> None:
    ramp = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    hot = ramp.copy()
    hot[3, 3] = 1000
    assert np.abs(loggers._grey(hot).astype(int) - loggers._grey(ramp)).max() <= 255
    assert np.median(np.abs(loggers._grey(hot).astype(int) - loggers._grey(ramp))) <= 2


def test_settings_are_sent_flat_whole_and_in_bounded_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[dict[str, Any]] = []
    fake = SimpleNamespace(
        start_run=lambda **k: SimpleNamespace(info=SimpleNamespace(run_id="id")),
        log_params=lambda part: parts.append(dict(part)),
    )
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setattr(loggers, "PARAMS_AT_ONCE", 7)
    config = toy_config(loggers=("mlflow",))
    said: list[str] = []
    (_,) = build_loggers(tmp_path, config, 0, said.append)
    assert said == [] and len(parts) > 1 and all(0 < len(part) <= 7 for part in parts)
    whole = {key: value for part in parts for key, value in part.items()}
    assert sum(map(len, parts)) == len(whole) <= 2 * PARAMS_AT_ONCE
    dumped = config.model_dump(mode="json")
    for key, value in whole.items():
        found: Any = dumped
        for name in key.split("."):
            found = found[name]
        assert found == value
    leaves = loggers._flat(dumped)
    assert whole == leaves and leaves["data.augment.gain"] == dumped["data"]["augment"]["gain"]


def test_what_is_not_installed_is_told_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Frail()
    monkeypatch.setitem(LOGGERS, "tensorboard", lambda *a: first)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    config = toy_config(loggers=("tensorboard", "mlflow"))
    with pytest.raises(ConfigError, match=r"mlflow is not installed; pip install"):
        build_loggers(tmp_path, config, 0, print)
    assert first.calls == []
