"""What the worker does, without a thread and without Qt."""

from dataclasses import replace
from threading import Event

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.registry import make_method
from napari_txm_bgcorr.core.correction import correct_tiles
from napari_txm_bgcorr.errors import AlreadyCorrectedError, DeviceError, ReadError
from napari_txm_bgcorr.gui.common.errors import errors_in_words
from napari_txm_bgcorr.gui.common.messages import Advanced, Failed, Preparing, Saved
from napari_txm_bgcorr.gui.correct.messages import Finished, Opened, Reopened, Started
from napari_txm_bgcorr.gui.correct.tasks import correct_job, read_paths, save_results
from napari_txm_bgcorr.gui.session import CorrectionJob, JobInput
from tests.gui.helpers import chosen, make_scan


def job_of(*scans, method="steady", **more):
    inputs = tuple(JobInput(f"scan{i}", i, scan) for i, scan in enumerate(scans))
    return CorrectionJob(inputs, chosen(method, **more))


def only(kind, messages):
    return [message for message in messages if isinstance(message, kind)]


@pytest.mark.parametrize("method", ["steady", "smooth"])
@pytest.mark.parametrize("kind", ["single", "series", "mosaic"])
def test_panel_and_correct_tiles_give_the_same_bits(steady, method, kind):
    scan = make_scan(kind)
    (finished,) = only(Finished, list(correct_job(job_of(scan, method=method), Event())))
    expected = list(correct_tiles(scan, make_method(method).fit(scan)))
    assert len(expected) == len(scan)
    for tile in expected:
        got = finished.result.tile(tile.index)
        for part in ("raw", "background", "transmission", "valid"):
            np.testing.assert_array_equal(getattr(got, part), getattr(tile, part))
    assert not finished.cancelled
    assert finished.result.provenance["method"] == method


def test_order_of_messages(steady):
    messages = list(correct_job(job_of(make_scan("series"), make_scan("single")), Event()))
    kinds = [type(m).__name__ for m in messages if not isinstance(m, Advanced)]
    assert kinds == ["Preparing"] + ["Preparing", "Started", "Finished"] * 2
    last = only(Advanced, messages)[-1]
    assert (last.done, last.total, last.seconds_left) == (6, 6, 0)


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: out of\nmemory"), MemoryError(), OSError(5, "I/O error")]
)
def test_what_breaks_is_one_line_and_keeps_the_tiles_done(steady, error):
    steady.fail, steady.fail_at = error, 1
    messages = list(correct_job(job_of(make_scan(grid=(4, 4))), Event()))
    (failed,) = only(Failed, messages)
    assert isinstance(failed.error, ReadError if isinstance(error, OSError) else DeviceError)
    assert "\n" not in str(failed.error) and "scan0" in str(failed.error)
    (finished,) = only(Finished, messages)
    assert finished.cancelled and 0 < finished.result.done.sum() < 16


def test_one_bad_input_does_not_stop_the_others(steady):
    done = make_scan(provenance={"method": "x", "role": "corrected"})
    messages = list(correct_job(job_of(done, make_scan("single")), Event()))
    (failed,) = only(Failed, messages)
    assert isinstance(failed.error, AlreadyCorrectedError)
    assert [m.result.name for m in only(Finished, messages)] == ["scan1"]


def test_correcting_again_is_possible_when_asked_for(steady):
    done = make_scan(provenance={"method": "x", "role": "corrected"})
    assert only(Finished, list(correct_job(job_of(done, again=True), Event())))


def test_cancel_stops_within_a_batch_and_keeps_the_rest(steady):
    stop, seen = Event(), []
    scan = make_scan(grid=(8, 8), size=8, overlap=0)
    for message in correct_job(job_of(scan), stop):
        seen.append(message)
        if isinstance(message, Started):
            result = message.result
        if isinstance(message, Advanced):
            at_stop = int(result.done.sum())
            stop.set()
    (finished,) = only(Finished, seen)
    assert finished.cancelled
    assert at_stop <= finished.result.done.sum() <= at_stop + 8


def test_cancel_is_heeded_while_a_method_is_being_fitted(steady):
    stop, read = Event(), []

    class Counting:
        def __init__(self, tiles):
            self.tiles, self.shape, self.dtype = tiles, tiles.shape, tiles.dtype

        def __getitem__(self, i):
            read.append(i)
            if len(read) == 3:
                stop.set()
            return self.tiles[i]

    scan = make_scan(grid=(4, 4))
    messages = list(correct_job(job_of(replace(scan, tiles=Counting(scan.tiles))), stop))
    assert len(read) == 3 and not only(Started, messages) and not only(Failed, messages)


def test_fitting_tells_how_far_it_is(steady):
    told = []
    list(correct_job(job_of(make_scan(grid=(3, 3))), Event(), told.append))
    assert told and all(isinstance(message, Preparing) for message in told)
    assert "preparing steady, 1 of 9" in told[0].text


def test_reading_goes_on_after_a_bad_path(tmp_path, txm_data):
    (tmp_path / "empty.xrm").write_bytes(b"")
    paths = [tmp_path / "empty.xrm", tmp_path / "gone.tif", txm_data / "bl01b_sb_2x2"]
    messages = list(read_paths(paths, Event()))
    assert len(only(Failed, messages)) == 2
    (opened,) = only(Opened, messages)
    assert opened.scan.kind == "mosaic" and opened.layer[1]["name"] == "bl01b_sb_2x2 raw"


@pytest.mark.parametrize("save_format", ["omezarr", "ometiff", "tiff"])
def test_saved_results_are_read_back_as_corrected(steady, tmp_path, txm_data, save_format):
    (opened,) = only(Opened, list(read_paths([txm_data / "bl01b_sb_2x2"], Event())))
    (finished,) = only(Finished, list(correct_job(job_of(opened.scan), Event())))
    messages = list(save_results([finished.result], tmp_path, save_format, False, Event()))
    assert not only(Failed, messages)
    (saved,) = only(Saved, messages)
    (again,) = only(Reopened, list(read_paths([saved.path], Event())))
    names = [layer[1]["name"] for layer in again.layers]
    assert names == ["scan0 raw", "scan0 background", "scan0 corrected"]
    back = again.result
    assert back.provenance == finished.result.provenance
    assert back.scan.pixel_nm == pytest.approx(opened.scan.pixel_nm)
    np.testing.assert_array_equal(back.corrected[2], finished.result.corrected[2])
    np.testing.assert_array_equal(back.original.tiles[3], opened.scan.tiles[3])
    np.testing.assert_array_equal(back.background[1], finished.result.background[1])
    again = list(save_results([finished.result], tmp_path, save_format, False, Event()))
    assert only(Failed, again)
    again = list(save_results([finished.result], tmp_path, save_format, True, Event()))
    assert only(Saved, again)


def test_half_a_result_is_not_saved(steady, tmp_path):
    steady.fail, steady.fail_at = RuntimeError("no"), 1
    (finished,) = only(Finished, list(correct_job(job_of(make_scan(grid=(4, 4))), Event())))
    (failed,) = only(
        Failed, list(save_results([finished.result], tmp_path, "tiff", False, Event()))
    )
    assert "of 16 tiles" in str(failed.error)
    assert not list(tmp_path.iterdir())


def test_words_for_what_a_disk_says():
    with (
        pytest.raises(ReadError, match=r"scan.xrm: Input/output error; check"),
        errors_in_words("s"),
    ):
        raise OSError(5, "Input/output error", "scan.xrm")
