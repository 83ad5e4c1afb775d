"""Two processes on CPUs train as one."""

import json
import socket

import pytest
import torch

from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.models.tensors import Batch
from napari_txm_bgcorr.training.distributed import ALONE, World, join
from napari_txm_bgcorr.training.loop import run_training
from napari_txm_bgcorr.training.run.folder import RunFolder
from tests.training import kill_server
from tests.training.test_loop import newest

NEVER = 999
TOLERANCE = 1e-3  # relative, of every logged loss and validation error over the run


def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def curves(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        (line["step"], name): value
        for line in lines
        for name, value in (line["losses"] | line["validation"]).items()
        if value is not None
    }


def test_two_processes_have_the_curve_of_one_with_the_whole_batch(server, tmp_path):
    assert server.ask(f"pair {server.run} {port()} 8 {NEVER}") == 0  # both stop where asked to
    status = RunFolder(server.run).status()
    assert (status.state, status.step, status.processes) == ("stopped", 8, 2)
    assert server.ask(f"pair {server.run} {port()} {NEVER} {NEVER}") == 0  # and go on
    run_training(kill_server.paired(), tmp_path / "alone", device="cpu")
    ours, alone = curves(server.run), curves(tmp_path / "alone")
    assert ours.keys() == alone.keys() and (20, "adversarial") in ours
    for key, value in alone.items():
        assert ours[key] == pytest.approx(value, rel=TOLERANCE, abs=1e-5), key
    assert len((server.run / "log.txt").read_text().split("started on")) == 2  # one wrote it
    held, whole = newest(server.run), newest(tmp_path / "alone")
    for name, value in whole["average"].items():
        torch.testing.assert_close(held["average"][name], value, rtol=0.02, atol=1e-3)


def test_bad_data_of_one_process_end_both(server):
    assert server.ask(f"pair {server.run} {port()} {NEVER} 6") == 22
    said = server.said()
    assert len(said) == 2 and all("step 10: the data set holds tiles with NaN" in s for s in said)
    assert newest(server.run)["step"] == 5


def test_rows_are_shared_out_once_each():
    batch = Batch(*(torch.arange(6.0).view(6, 1) for _ in range(4)))
    parts = [World(rank, 3).part(batch).inputs for rank in range(3)]
    assert torch.equal(torch.cat(parts), batch.inputs)
    assert ALONE.part(batch) is batch and ALONE.share(3) == 3 and ALONE.mean({"a": 2}) == {"a": 2}
    with pytest.raises(ConfigError, match="batch: 4 is no multiple of the 3 processes"):
        World(0, 3).check(4)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    module = "napari_txm_bgcorr.training.distributed"
    monkeypatch.setattr(f"{module}.choose_device", lambda wanted: "cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="torchrun: 2 processes on 1 GPUs"), join("auto"):
        pass
