"""Small JSON files come back, and are never seen half written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.json_file import read_json, write_json

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=st.dictionaries(st.text(), values))
def test_an_object_comes_back(tmp_path: Path, value: dict[str, Any]) -> None:
    place = tmp_path / "a.json"
    write_json(place, value)
    assert read_json(place) == value
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    place = tmp_path / "a.json"
    write_json(place, {"a": 1})
    with pytest.raises(TypeError):
        write_json(place, {"a": object()})
    assert read_json(place) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "damaged"), (b"{", "damaged"), (b"\xff\xfe{", "damaged"), (b"[1]", "no JSON object"),
     (b"null", "no JSON object"), (b'"a"', "no JSON object"), (b"[" * 100_000, "damaged")],
)  # fmt: skip
def test_what_is_no_object_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    place = tmp_path / "a.json"
    place.write_bytes(content)
    with pytest.raises(ReadError, match=words) as caught:
        read_json(place)
    assert str(place) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"none\.json: no such file"):
        read_json(tmp_path / "none.json")
