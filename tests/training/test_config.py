"""Settings: every fault is one line that names key and value, and overrides reach any depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.training.config import (
    MOST_WORKERS,
    TrainConfig,
    load_config,
    parse_config,
    preset_names,
)


def leaves(model: Any, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of all settings, groups walked into."""
    found: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        inner = hasattr(kind, "model_fields")
        found += leaves(kind, (*before, name)) if inner else [(*before, name)]
    return found


LEAVES = leaves(TrainConfig)


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    return {path[0]: nested(path[1:], value) if len(path) > 1 else value}


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_a_value_of_no_sense_is_named_with_its_key(path: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(nested(path, {"no": ["sense"]}), "run.yaml")
    said = str(caught.value)
    assert said.startswith(f"run.yaml: {'.'.join(path)}") and "\n" not in said
    assert said.endswith("; correct or remove it")


@pytest.mark.parametrize("path", [p for p in LEAVES if len(p[-1]) > 5], ids=".".join)
def test_a_slip_of_the_pen_is_told_what_was_meant(path: tuple[str, ...]) -> None:
    slip = (*path[:-1], path[-1][:2] + path[-1][3:] + "q")
    with pytest.raises(ConfigError) as caught:
        parse_config(nested(slip, 1), "run.yaml")
    assert f"run.yaml: {'.'.join(slip)}: " in str(caught.value)
    assert f"no such setting, perhaps {path[-1]} is meant" in str(caught.value)


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_an_override_reaches_every_setting(path: tuple[str, ...], tmp_path: Path) -> None:
    value: Any = TrainConfig().model_dump(mode="json")
    for name in path:
        value = value[name]
    place = tmp_path / "empty.yaml"
    place.write_text("")
    key, text = ".".join(path), yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
    assert load_config(place, [f"{key}={text}"]) == TrainConfig()


@settings(deadline=None, max_examples=40)
@given(
    steps=st.integers(1, 10**6), lr=st.floats(1e-8, 10), l1=st.floats(0, 100),
    workers=st.one_of(st.just("auto"), st.integers(0, MOST_WORKERS)),
)  # fmt: skip
def test_settings_come_back_from_yaml(steps: int, lr: float, l1: float, workers: Any) -> None:
    config = TrainConfig.model_validate(
        {"steps": steps, "lr": lr, "loss_weights": {"l1": l1}, "data": {"workers": workers}}
    )
    text = yaml.safe_dump(config.model_dump(mode="json"))
    assert parse_config(yaml.safe_load(text), "x") == config


def test_the_last_override_counts_and_the_file_comes_before(tmp_path: Path) -> None:
    place = tmp_path / "a.yaml"
    place.write_text("steps: 3\nlr: 0.5\ndata: {p_flip: 0.1, drift: [0.1, 1]}\n")
    config = load_config(place, ["steps=5", "steps=7", "data.p_flip=0.9"])
    assert (config.steps, config.lr, config.data.p_flip) == (7, 0.5, 0.9)
    assert config.data.drift == (0.1, 1.0)


def test_settings_cannot_be_changed_later() -> None:
    config = load_config(preset_names()[0])
    with pytest.raises(ValueError, match="frozen"):
        config.steps = 3


@pytest.mark.parametrize("item", ["=3", " =3", "steps", ""])
def test_an_override_without_a_key_is_named(item: str) -> None:
    with pytest.raises(ConfigError, match="not of the form key=value"):
        load_config("default", [item])


def test_an_override_that_is_no_yaml_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--set steps=\[: the value is not valid YAML"):
        load_config("default", ["steps=["])


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    place = tmp_path / "a.yaml"
    place.write_bytes(b"\xff\xfe\x00steps")
    with pytest.raises(ConfigError, match=r"a\.yaml: cannot be read as text"):
        load_config(place)
