"""From what the user chose to a job, without Qt."""

import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

from napari_txm_bgcorr.errors import AlreadyCorrectedError, ConfigError
from napari_txm_bgcorr.gui.session import InputInfo, Session, resolve
from napari_txm_bgcorr.workflows import CorrectionConfig
from tests.gui.helpers import make_scan


def info(name="a raw", role="raw", **more):
    more.setdefault("scan", make_scan())
    return InputInfo(name=name, role=role, **more)


def test_job_holds_what_was_chosen_and_does_not_change():
    session = Session(
        inputs=(info(key=5),),
        method="captured",
        model="mine",
        device="cpu",
        references=(Path("ref.xrm"),),
        darks=(Path("dark.tif"),),
        combine="median",
    )
    job = resolve(session)
    assert job.config.combine == "median"
    assert [(item.name, item.key) for item in job.inputs] == [("a", 5)]
    assert (job.config.method, job.config.model, job.config.device) == ("captured", "mine", "cpu")
    assert job.config.references == (Path("ref.xrm"),) and job.config.darks == (Path("dark.tif"),)
    session.method = "smooth"
    assert job.config.method == "captured"
    with pytest.raises(FrozenInstanceError):
        job.config = CorrectionConfig()


def test_every_change_is_announced():
    session, heard = Session(), []
    session.events.method.connect(heard.append)
    session.method = "smooth"
    session.method = "smooth"
    assert heard == ["smooth"]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((), "no input: drop a file"),
        ((info("seg", None, kind="labels", scan=None),), "seg: a labels layer"),
        ((info("photo", None, rgb=True, scan=None),), "photo: a colour image"),
        ((info("movie", None, ndim=4, scan=None),), "movie: 4 axes"),
        ((info("a background", "background"),), "a background, not raw data"),
        ((info("odd", None, scan=None),), "odd: holds no tiles"),
    ],
)
def test_unusable_input_is_refused_in_words(inputs, words):
    with pytest.raises(ConfigError, match=words):
        resolve(Session(inputs=inputs))


def test_corrected_input_needs_the_box_ticked():
    session = Session(inputs=(info("a corrected", "corrected"),))
    with pytest.raises(AlreadyCorrectedError, match="Correct again anyway"):
        resolve(session)
    session.again = True
    assert resolve(session).config.force


def test_results_beside_raw_layers_are_left_out():
    inputs = (info("a raw"), info("a background", "background"), info("a corrected", "corrected"))
    assert [item.name for item in resolve(Session(inputs=inputs)).inputs] == ["a"]


def test_resolving_reads_no_pixel():
    class Unread:
        shape, dtype = (4, 8, 8), np.dtype("u2")

        def __getitem__(self, key):
            raise AssertionError("a pixel was read")

    from dataclasses import replace

    scan = replace(make_scan("mosaic"), tiles=Unread())
    assert len(resolve(Session(inputs=(info(scan=scan),))).inputs) == 1


def test_session_and_tasks_load_no_qt():
    code = (
        "import sys, napari_txm_bgcorr.gui.session, napari_txm_bgcorr.gui.correct.tasks,"
        " napari_txm_bgcorr.gui.hooks;"
        "bad = {'qtpy', 'PyQt6', 'PySide6', 'superqt', 'napari', 'torch'} & set(sys.modules);"
        "sys.exit(str(sorted(bad)) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
