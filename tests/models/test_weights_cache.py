"""Weights are loaded once, anew where the file has changed, and can be let go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from napari_txm_bgcorr.models import weights_cache
from napari_txm_bgcorr.models.checkpoint import save_model
from napari_txm_bgcorr.models.networks import build_generator
from napari_txm_bgcorr.models.weights_cache import release, resident
from napari_txm_bgcorr.training.config import NetworkConfig

TINY = NetworkConfig(field_px=16, features=(4, 4))


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    release()
    yield
    release()


def saved(path: Path, value: float) -> Path:
    network = build_generator(TINY)
    for p in network.parameters():
        torch.nn.init.constant_(p, value)
    save_model(path, network, TINY)
    return path


def got(path: Path, stamp: int = 1) -> torch.nn.Module:
    return resident(str(path), stamp, "cpu")[1]


def test_a_model_is_loaded_once_and_never_learns(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", 0.5)
    network = got(path)
    assert got(path) is network
    assert all((p == 0.5).all() and not p.requires_grad for p in network.parameters())
    assert not network.training
    assert resident(str(path), 1, "cpu")[0].config == TINY


def test_a_changed_file_is_loaded_anew(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", 0.5)
    old = got(path, path.stat().st_mtime_ns)
    saved(path, 0.25)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))
    new = got(path, path.stat().st_mtime_ns)
    assert all((p == 0.25).all() for p in new.parameters())
    assert all((p == 0.5).all() for p in old.parameters())  # whoever uses it keeps it


def test_the_two_used_last_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [saved(tmp_path / f"{k}.safetensors", k / 8) for k in range(3)]
    loads: list[str] = []
    real = weights_cache.load_model

    def load(path: Path) -> object:
        loads.append(path.name)
        return real(path)

    monkeypatch.setattr(weights_cache, "load_model", load)
    for k in (0, 1, 0, 2, 0, 1):
        got(paths[k])
    assert [int(name[0]) for name in loads] == [0, 1, 2, 1]


def test_what_is_let_go_is_loaded_again(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", 0.5)
    network = got(path)
    release()
    assert got(path) is not network
