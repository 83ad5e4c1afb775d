"""From what the user chose to a training's command line, without Qt."""

import subprocess
import sys
from pathlib import Path

import pytest

from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.gui.train.session import (
    DataItem,
    TrainSession,
    job_arguments,
    new_run_folder,
    resolve_training,
    resume_arguments,
)


def item(name, role="references", **more):
    return DataItem(Path(f"/data/{name}"), role, name, **more)


def test_choices_become_the_command_a_user_would_give(tmp_path):
    session = TrainSession(
        items=(item("ref1.xrm"), item("ref2.xrm"), item("clean.tif", "samples")),
        device="cpu",
        changes={"minutes": 2.5, "loss_weights.fft_l1": 0.3},
        more="lr=1e-4  validate_every=50",
        run=tmp_path / "own",
    )
    words = job_arguments(resolve_training(session, tmp_path))
    assert " ".join(words) == (
        f"fine-tune --run {tmp_path / 'own'} --references /data/ref1.xrm /data/ref2.xrm"
        " --samples /data/clean.tif --set minutes=2.5 --set loss_weights.fft_l1=0.3"
        " --set lr=1e-4 --set validate_every=50 --device cpu"
    )


def test_the_command_understands_these_arguments(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from napari_txm_bgcorr import cli, training

    seen = {}

    def stop_here(source, overrides):
        seen.update(source=source, overrides=overrides)
        raise ConfigError("seen")

    monkeypatch.setattr(training, "load_config", stop_here)
    paths = [tmp_path / name for name in ("ref 1.tif", "raw", "true", "dark.tif")]
    for path in paths:
        path.touch()
    roles = ("references", "raws", "backgrounds", "darks")
    items = tuple(DataItem(p, role, p.name) for p, role in zip(paths, roles, strict=True))
    session = TrainSession(items=items, changes={"batch": 4})
    CliRunner().invoke(cli.app, ["train", *job_arguments(resolve_training(session, tmp_path))])
    assert seen["source"] == "fine-tune"
    found = "\n".join(map(str, seen["overrides"]))
    assert (
        "ref 1.tif" in found and '/raw", ' in found and "dark.tif" in found and "batch=4" in found
    )


def test_pairs_go_side_by_side(tmp_path):
    items = (item("b1", "backgrounds"), item("r1", "raws"), item("r2", "raws"))
    with pytest.raises(ConfigError, match=r"pairs: 2 .* and 1 of backgrounds"):
        resolve_training(TrainSession(items=items), tmp_path)
    whole = TrainSession(items=(*items, item("b2", "backgrounds")))
    words = job_arguments(resolve_training(whole, tmp_path))
    at = words.index("--pairs")
    assert words[at + 1 : at + 5] == ["/data/r1", "/data/b1", "/data/r2", "/data/b2"]


def test_what_cannot_be_trained_is_said(tmp_path):
    with pytest.raises(ConfigError, match="no references: drop"):
        resolve_training(TrainSession(), tmp_path)
    resolve_training(TrainSession(preset="from-nothing"), tmp_path)  # simulated sessions alone
    with pytest.raises(ConfigError, match="'fast' is not of the form key=value"):
        resolve_training(TrainSession(preset="from-nothing", more="fast"), tmp_path)
    many = tuple(item(f"{'long' * 30}{i}") for i in range(400))
    with pytest.raises(ConfigError, match="400 paths are too many"):
        job_arguments(resolve_training(TrainSession(items=many), tmp_path))


def test_a_layer_gets_a_file_in_the_runs_folder(tmp_path):
    session = TrainSession(items=(item("my flat/1", array=object()),), run=tmp_path / "run")
    (placed,) = resolve_training(session, tmp_path).items
    assert placed.path == tmp_path / "run" / "data" / "00_my_flat_1.npy"


def test_run_folders_never_collide(tmp_path):
    first = new_run_folder(tmp_path, "fine-tune")
    first.mkdir()
    second = new_run_folder(tmp_path, "fine-tune")
    assert second != first and not second.exists()
    assert first.name.endswith("fine-tune")


def test_resuming_needs_no_more_than_the_folder():
    assert resume_arguments(Path("/r"), "cuda:0") == [
        "--run", "/r", "--resume", "--device", "cuda:0",
    ]  # fmt: skip


def test_session_needs_no_qt():
    code = (
        "import sys, napari_txm_bgcorr.gui.train.session\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('qtpy', 'napari', 'torch')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
