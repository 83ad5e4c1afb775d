"""Energy, profiles and other places that take the curves; what a run tells of itself."""

import json
import os
import socket
import sys
import threading
import time
import types
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.training import energy
from napari_txm_bgcorr.training.energy import EnergyConfig, EnergyMeter, describe
from napari_txm_bgcorr.training.loop import run_training
from napari_txm_bgcorr.training.profiling import PHASES
from napari_txm_bgcorr.training.run.folder import KEEP_PREVIEWS, RunFolder
from napari_txm_bgcorr.training.run.status import Heartbeat, RunStatus, read_status
from tests.training.test_loop import GAN, assert_same, newest, weights
from tests.training.toy import toy_config

# -- energy -----------------------------------------------------------------------------------


def zone(folder, name, uj, top=1_000_000):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{top}\n")


def test_processor_counters_are_added_and_their_wraps_undone(tmp_path):
    zone(tmp_path / "intel-rapl:0", "package-0", 900_000)
    zone(tmp_path / "intel-rapl:1", "package-1", 0)
    zone(tmp_path / "intel-rapl:2", "psys", 5)  # holds the packages once more
    meter = EnergyMeter("cpu", tmp_path).start()
    assert meter.source == "rapl" and meter.joules() == 0
    zone(tmp_path / "intel-rapl:0", "package-0", 100_000)  # wrapped
    zone(tmp_path / "intel-rapl:1", "package-1", 300_000)
    zone(tmp_path / "intel-rapl:2", "psys", 999)
    assert meter.joules() == pytest.approx(0.5)
    zone(tmp_path / "intel-rapl:0", "package-0", 150_000)
    assert meter.joules() == pytest.approx(0.55)


def test_what_cannot_be_read_is_not_measured(tmp_path):
    for device in ("cpu", "cuda:7", "mps", "", "cpu,mps"):
        meter = EnergyMeter(device, tmp_path).start()
        assert (meter.source, meter.joules(), meter.watts()) == ("not measured", None, None)
    zone(tmp_path / "intel-rapl:0", "package-0", 1)
    meter = EnergyMeter("cpu", tmp_path).start()
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert meter.joules() is None and meter.source == "not measured"
    assert describe(None, "rapl", 5, EnergyConfig()) == {"source": "not measured"}


def test_gpu_counter_is_read_in_joules(monkeypatch):
    counts = iter([1_000, 5_000, 12_000])  # millijoules: one look whether there is a counter
    fake = types.SimpleNamespace(
        NVMLError=type("NVMLError", (Exception,), {}),
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(counts),
        nvmlDeviceGetPowerUsage=lambda handle: 250_000,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(energy, "_cuda_uuid", lambda device: "GPU-1")
    meter = EnergyMeter("cuda:0").start()
    assert (meter.source, meter.joules(), meter.watts()) == ("nvml", 7.0, 250.0)


def test_figures_carry_their_factors():
    factors = EnergyConfig(price_per_kwh=0.2, currency="EUR", co2_kg_per_kwh=0.4)
    told = describe(7.2e6, "nvml", 4000, factors)
    assert told == {
        "source": "nvml", "joules": 7.2e6, "joules_per_1000_samples": 1.8e6, "kwh": 2.0,
        "cost": 0.4, "currency": "EUR", "price_per_kwh": 0.2, "co2_kg": 0.8,
        "co2_kg_per_kwh": 0.4,
    }  # fmt: skip


def test_a_run_adds_up_the_energy_of_its_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(EnergyMeter, "source", "rapl")
    monkeypatch.setattr(EnergyMeter, "joules", lambda self: 100.0)
    run_training(toy_config(steps=10), tmp_path, device="cpu")
    run_training(toy_config(steps=20), tmp_path, device="cpu", resume=True)
    told = RunFolder(tmp_path).status().energy
    assert (told["joules"], told["joules_per_1000_samples"]) == (200, 2500)  # 80 tiles
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["energy"]["joules"] for line in lines] == [100, 100, 100, 200, 200]


# -- loggers and profile ----------------------------------------------------------------------


def recorder():
    """A module named mlflow that remembers what it was asked."""
    told = []
    names = ("log_params", "log_metrics", "log_image", "log_artifact", "end_run")
    fake = types.SimpleNamespace(
        **{name: lambda *a, _n=name, **k: told.append((_n, a, k)) for name in names}
    )

    def start_run(**keys):
        told.append(("start_run", (), keys))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="abc"))

    fake.start_run = start_run
    return fake, told


def test_mlflow_takes_curves_pictures_and_settings_and_goes_on_in_the_same_run(
    tmp_path, monkeypatch
):
    fake, told = recorder()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    run = tmp_path / "tuesday"
    run_training(toy_config(steps=10, loggers=["mlflow"]), run, device="cpu")
    assert told[0] == ("start_run", (), {"run_id": None, "run_name": "tuesday"})
    assert told[1][1][0]["loss_weights.l1"] == 1.0
    metrics = [(k["step"], a[0]) for name, a, k in told if name == "log_metrics"]
    assert [step for step, _ in metrics] == [0, 5, 10]
    assert {"loss/l1", "loss/total", "validation/mean", "lr"} <= metrics[-1][1].keys()
    image, place = next(a for name, a, _ in told if name == "log_image")
    assert image.dtype == np.uint8 and place.endswith(".png")
    assert told[-4] == ("end_run", ("FINISHED",), {})
    kept = [Path(a[0]).name for name, a, k in told[-3:] if k == {"run_id": "abc"}]
    assert kept == ["model.safetensors", "model.json", "config.yaml"]
    told.clear()
    run_training(toy_config(steps=15, loggers=["mlflow"]), run, device="cpu", resume=True)
    assert told[0][2]["run_id"] == "abc" and all(name != "log_params" for name, _, _ in told)


@pytest.mark.parametrize(("end", "told_end"), [("stop", "KILLED"), ("break", "FAILED")])
def test_mlflow_is_told_how_the_run_ended(tmp_path, monkeypatch, end, told_end):
    fake, told = recorder()
    monkeypatch.setitem(sys.modules, "mlflow", fake)

    def on_step(step):
        if step.step == 3 and end == "break":
            raise ConfigError("broken")
        if step.step == 3:
            RunFolder(tmp_path).ask("stop")

    with nullcontext() if end == "stop" else pytest.raises(ConfigError):
        run_training(toy_config(loggers=["mlflow"]), tmp_path, device="cpu", on_step=on_step)
    assert [a for name, a, _ in told if name == "end_run"] == [(told_end,)]
    assert sum(name == "log_artifact" for name, _, _ in told) == 3


@pytest.mark.parametrize(
    "away", ["start_run", "log_params", "log_metrics", "log_image", "end_run", "log_artifact"]
)
def test_a_server_that_goes_away_costs_one_warning(tmp_path, monkeypatch, away):
    fake, _ = recorder()
    whole = ["start_run", "log_params", "log_metrics", "log_image", "end_run", "log_artifact"]

    def gone(*args, **keys):
        raise ConnectionError("no answer from\nhttp://me:secret@host:5000/api")

    for name in whole[whole.index(away) :]:
        monkeypatch.setattr(fake, name, gone)
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    run_training(toy_config(loggers=["mlflow"]), tmp_path, device="cpu")
    status = RunFolder(tmp_path).status()
    assert (status.state, status.step) == ("finished", 20)
    (said,) = status.warnings
    assert said.startswith("mlflow: no answer from http://***@host:5000/api; the training goes on")
    log = (tmp_path / "log.txt").read_text()
    assert log.count("warning") == 1 and "secret" not in log


def test_what_the_user_set_for_mlflow_holds(tmp_path, monkeypatch):
    fake, _ = recorder()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "300")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    run_training(toy_config(steps=1, loggers=["mlflow"]), tmp_path, device="cpu")
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "300"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"


def test_a_logger_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"mlflow is not installed; pip install .*\[mlflow\]"):
        run_training(toy_config(loggers=["mlflow"]), tmp_path, device="cpu")
    assert RunFolder(tmp_path).status().state == "failed"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised within tensorboard
def test_tensorboard_has_the_curves(tmp_path):
    run_training(toy_config(steps=10, loggers=["tensorboard"]), tmp_path, device="cpu")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    held = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in held.Scalars("loss/l1")] == [5, 10]
    assert [e.step for e in held.Scalars("validation/mean")] == [0, 10]
    assert "preview/predicted" in held.Tags()["images"]


def test_a_profile_names_the_phases(tmp_path):
    config = toy_config(loss_weights=GAN, adversarial_start=0)
    run_training(config, tmp_path, device="cpu", profile=True)
    trace = json.loads((tmp_path / "profile" / "trace.json").read_text())
    assert set(PHASES) <= {event.get("name") for event in trace["traceEvents"]}
    assert "generator" in (tmp_path / "profile" / "table.txt").read_text()


# -- status, pause, previews ------------------------------------------------------------------


def test_a_run_pauses_and_goes_on_as_if_nothing_had_been(tmp_path):
    config = toy_config(loss_weights=GAN, adversarial_start=0.1)
    run_training(config, tmp_path / "whole", device="cpu")
    folder, seen = RunFolder(tmp_path / "paused"), []

    def watch():
        while not seen:
            status = folder.status()
            if status is not None and status.state == "paused":
                seen.append((status, folder.newest()[0]["step"]))
            time.sleep(0.01)
        time.sleep(0.3)
        folder.withdraw("pause")

    def pause(step):
        if step.step == 8 and not seen:
            folder.ask("pause", free_device=True)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began = time.monotonic()
    run_training(config, folder.path, device="cpu", on_step=pause)
    took = time.monotonic() - began
    watcher.join(10)
    (status, kept), *_ = seen
    assert (status.step, kept) == (8, 8) and status.alive()
    assert folder.status().elapsed_s < took - 0.3  # the pause is no training time
    assert_same(newest(tmp_path / "whole"), newest(folder.path))
    assert_same(weights(tmp_path / "whole"), weights(folder.path))
    assert "paused at step 8" in (folder.path / "log.txt").read_text()


def test_status_tells_how_the_run_is(tmp_path):
    run_training(toy_config(), tmp_path, device="cpu")
    status = RunFolder(tmp_path).status()
    assert (status.state, status.step, status.steps, status.progress) == ("finished", 20, 20, 1)
    assert status.host == socket.gethostname() and status.device == "cpu" and status.device_name
    first, *_, last = (tmp_path / "metrics.jsonl").read_text().splitlines()
    start = json.loads(first)["validation_start"]
    assert status.validation_start == start == json.loads(first)["validation"]["mean"]
    assert status.validation_best <= status.validation == json.loads(last)["validation"]["mean"]
    assert 0 < status.device_memory_gb < status.device_memory_total_gb
    assert status.samples_per_s > 0 and not status.alive() and status.reason
    log = (tmp_path / "log.txt").read_text()
    assert "started on cpu" in log and "validation error none" in log and "finished" in log


def test_living_and_dead_processes_are_told_apart(tmp_path):
    own = psutil.Process()
    here = {"host": socket.gethostname(), "process_started": own.create_time()}
    assert RunStatus("running", own.pid, **here).alive()
    assert not RunStatus("finished", own.pid, **here).alive()
    reused = here | {"process_started": own.create_time() - 100}
    assert RunStatus("paused", own.pid, **reused).seen_state() == "died"
    away = RunStatus("running", 1, "elsewhere", heartbeat=1000, heartbeat_s=5)
    assert away.alive(now=1030) and not away.alive(now=1090)
    assert read_status(tmp_path) is None
    for text in ("", "{", "[]", '{"state": "dancing"}'):
        (tmp_path / "status.json").write_text(text)
        assert read_status(tmp_path) is None
    (tmp_path / "status.json").write_text('{"state": "failed", "error": "x", "later": 1}')
    assert read_status(tmp_path).error == "x"


def test_the_heart_beats_without_being_told(tmp_path):
    heart = Heartbeat(tmp_path, interval_s=0.05)
    first, until = read_status(tmp_path), time.monotonic() + 30
    while read_status(tmp_path).heartbeat == first.heartbeat and time.monotonic() < until:
        time.sleep(0.01)
    assert read_status(tmp_path).heartbeat > first.heartbeat
    for number in range(12):
        heart.warn(f"warning {number}")
    heart.close("stopped", step=3)
    status = read_status(tmp_path)
    assert (status.state, status.step, len(status.warnings)) == ("stopped", 3, 10)
    assert status.warnings[-1] == "warning 11" and not heart._thread.is_alive()


def test_previews_are_bounded_and_the_first_stays(tmp_path):
    folder = RunFolder(tmp_path)
    for step in range(0, 300, 10):
        folder.save_preview(step, {"raw": np.full((4, 4), step, np.float32)})
    names = sorted(p.name for p in (tmp_path / "previews").iterdir())
    assert len(names) == KEEP_PREVIEWS + 2
    assert "step_00000000.npz" in names and "step_00000290.npz" in names
    latest = folder.read_preview()
    assert latest["step"] == 290 and latest["raw"].max() == 290
    assert folder.read_preview("step_00000010") == {}


def test_metrics_are_followed_line_by_line(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.read_metrics() == ([], 0)
    folder.log({"step": 1, "losses": {"l1": float("nan")}})
    lines, place = folder.read_metrics()
    assert lines == [{"step": 1, "losses": {"l1": None}}]
    with folder.metrics.open("a") as stream:
        stream.write('{"step": 2')  # in the middle of being written
    assert folder.read_metrics(place) == ([], place)
    with folder.metrics.open("a") as stream:
        stream.write("}\n")
    assert folder.read_metrics(place)[0] == [{"step": 2}]
    folder.drop_metrics_after(1)
    assert folder.read_metrics(10_000)[0][0]["step"] == 1


def test_reading_a_run_folder_needs_no_torch():
    import subprocess

    code = (
        "import sys; from napari_txm_bgcorr.training.run import folder, status; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_sigterm_stops_with_a_checkpoint(tmp_path):
    import os
    import signal

    def tell(step):
        if step.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    run_training(toy_config(), tmp_path, device="cpu", on_step=tell)
    status = RunFolder(tmp_path).status()
    assert (status.state, status.step, status.reason) == ("stopped", 7, "told by SIGTERM")
    assert newest(tmp_path)["step"] == 7 and signal.getsignal(signal.SIGTERM) == before


def test_an_interrupt_between_steps_keeps_this_moment(tmp_path):
    def interrupt(step):
        if step.step == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(toy_config(), tmp_path, device="cpu", on_step=interrupt)
    assert newest(tmp_path)["step"] == 13
    assert RunFolder(tmp_path).status().reason == "interrupted"
    torch.manual_seed(1)
    run_training(toy_config(), tmp_path, device="cpu", resume=True)
    assert newest(tmp_path)["step"] == 20
