"""`txm-bgcorr doctor`: what a bug report needs."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil
import typer

from .options import JsonFlag

__all__ = ["doctor"]

PACKAGES = (
    "napari-txm-bgcorr", "napari", "npe2", "magicgui", "numpy", "scipy", "torch", "monai",
    "tifffile", "zarr", "h5py", "dask", "qtpy",
)  # fmt: skip
QT_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")
GIB = 2**30

# Run in a process of its own: a broken Qt or GL aborts the whole process.
GL_PROBE = """
from qtpy.QtGui import QGuiApplication, QOffscreenSurface, QOpenGLContext
from qtpy import API_NAME
app = QGuiApplication([])
surface = QOffscreenSurface(); surface.create()
context = QOpenGLContext()
if not (context.create() and context.makeCurrent(surface)):
    raise SystemExit("no OpenGL context")
from OpenGL import GL
print(API_NAME, "|", GL.glGetString(GL.GL_RENDERER).decode(), "|",
      GL.glGetString(GL.GL_VERSION).decode())
"""


def doctor(as_json: JsonFlag = False) -> None:
    """Print versions, devices, Qt binding, OpenGL and free memory for a bug report."""
    report = _report()
    if as_json:
        typer.echo(json.dumps(report))
        return
    for section, facts in report.items():
        typer.echo(section)
        for name, value in facts.items():
            typer.echo(f"  {name:<20}{value}")


def _report() -> dict[str, dict[str, Any]]:
    return {
        "system": {
            "platform": platform.platform(),
            "python": sys.version.split()[0],
            "cores": psutil.cpu_count(),
            "memory free": f"{psutil.virtual_memory().available / GIB:.1f} GiB",
            "memory total": f"{psutil.virtual_memory().total / GIB:.1f} GiB",
            "disk free (temp)": f"{shutil.disk_usage(tempfile.gettempdir()).free / GIB:.1f} GiB",
        },
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": _devices(),
        "models": _models(),
        "display": {**{name: _version(name) for name in QT_BINDINGS}, "OpenGL": _gl()},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> dict[str, Any]:
    try:
        import torch

        from napari_txm_bgcorr.models import list_devices
    except (ImportError, OSError) as error:  # a library that torch needs: what the report is for
        return {"torch": _not_loaded(error)}
    cuda = torch.version.cuda or torch.version.hip
    found = {
        device.name: f"{device.label}, {device.memory_gb:.1f} GB" for device in list_devices()
    }
    return {"torch is built for": f"CUDA {cuda}" if cuda else "CPU, not for CUDA", **found}


def _not_loaded(error: Exception) -> str:
    remedy = (
        "; install the Microsoft Visual C++ Redistributable" if sys.platform == "win32" else ""
    )
    return f"cannot be loaded ({' '.join(str(error).split())}){remedy}"


def _models() -> dict[str, Any]:
    try:
        from napari_txm_bgcorr.models import list_models
    except (ImportError, OSError) as error:
        return {"torch": _not_loaded(error)}
    return {name: str(path) for name, path in list_models().items()}


def _gl() -> str:
    try:
        probe = subprocess.run(
            [sys.executable, "-c", GL_PROBE], capture_output=True, text=True, timeout=30
        )
    except subprocess.TimeoutExpired:
        return "no answer within 30 s"
    if probe.returncode:
        lines = (probe.stderr.strip() or "no message").splitlines()
        reason = next((line for line in lines if "could not" in line), lines[-1])
        return f"not usable ({reason.strip()})"
    return probe.stdout.strip()
