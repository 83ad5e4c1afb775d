"""The command where the console knows one code page only, and torch cannot be loaded."""

import json
import os
import subprocess
import sys

import pytest

from napari_txm_bgcorr import models
from napari_txm_bgcorr.cli import doctor
from napari_txm_bgcorr.cli.options import expanded
from napari_txm_bgcorr.workflows.cluster import schedulers as clusters


def test_names_beyond_the_code_page_of_a_pipe_are_printed(tmp_path):
    """On Windows a pipe has the code page of the country, which knows few letters."""
    place = tmp_path / "\u03bc-\u6a23\u54c1.tif"
    place.write_bytes(b"no image")
    code = "import sys; sys.argv[0] = 'txm-bgcorr'; from napari_txm_bgcorr.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "info", str(place)],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
    )
    said = (done.stdout + done.stderr).decode("cp1252")
    assert done.returncode == 2 and "Traceback" not in said
    assert "\\u6a23" in said


def test_output_beyond_the_code_page_is_printed():
    code = (
        "import sys; sys.argv = ['txm-bgcorr', '--version']; import typer; echo = typer.echo; "
        "typer.echo = lambda text, **k: echo(text + ' \\u2192', **k); "
        "from napari_txm_bgcorr.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u2192" in done.stdout


@pytest.mark.parametrize("platform", ["win32", "linux"])
def test_doctor_reports_a_torch_that_cannot_be_loaded(monkeypatch, platform):
    """What a bug report needs most of all; on Windows a runtime library is often missing."""

    class Broken:
        def find_spec(self, name, *_):
            if name in ("torch", "napari_txm_bgcorr.models.checkpoint"):
                raise OSError("[WinError 126] module not found. Error loading fbgemm.dll")

    for name in ("torch", "napari_txm_bgcorr.models.checkpoint"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in models.__all__:  # what other tests have asked for is kept there
        monkeypatch.delitem(vars(models), name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(doctor, "_gl", lambda: "")
    report = json.loads(json.dumps(doctor._report()))
    assert "fbgemm.dll" in report["devices"]["torch"] and "fbgemm" in report["models"]["torch"]
    assert ("Redistributable" in report["devices"]["torch"]) is (platform == "win32")


def test_doctor_tells_what_torch_was_built_for(monkeypatch):
    import torch

    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert doctor._devices()["torch is built for"] == "CUDA 12.8"
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "not for CUDA" in doctor._devices()["torch is built for"]


def test_wildcards_that_no_shell_expands(tmp_path, monkeypatch):
    """PowerShell and cmd leave them; typer would expand a pattern meant for `watch`, too."""
    monkeypatch.chdir(tmp_path)
    for name in ("ref_1.xrm", "ref_2.xrm", "a1.xrm", "a[1].xrm"):
        (tmp_path / name).touch()
    given = ["correct", "a[1].xrm", "--force", "a?.xrm", "none*", "--reference", "ref*.xrm"]
    wanted = ["correct", "a[1].xrm", "--force", "a1.xrm", "none*"]
    wanted += ["--reference", "ref_1.xrm", "--reference", "ref_2.xrm"]
    assert expanded(given) == wanted
    assert expanded(["watch", ".", "--pattern", "*.xrm"]) == ["watch", ".", "--pattern", "*.xrm"]
    assert expanded(["--references", "ref*", "-o", "x"]) == [
        "--references", "ref_1.xrm", "ref_2.xrm", "-o", "x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "wanted"), [(None, ["0", "1"]), ("2,3", ["2", "3"]), ("GPU-a, GPU-b", None)]
)
def test_local_workers_take_the_devices_that_are_ours(monkeypatch, given, wanted):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert clusters._visible(2) == (wanted or ["GPU-a", "GPU-b"])
    assert clusters._visible(0) == []
