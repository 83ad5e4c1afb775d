"""Windows, one NVIDIA GPU, Apple: what can be acted out on a machine that has none of them."""

import gc
import json
import os
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_txm_bgcorr.core import files
from napari_txm_bgcorr.core.files import write_atomic
from napari_txm_bgcorr.core.training_images import TrainingData
from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.evaluation.benchmark import training as bench
from napari_txm_bgcorr.evaluation.benchmark.table import Seen
from napari_txm_bgcorr.evaluation.benchmark.training_step import Setting, make_networks
from napari_txm_bgcorr.models import devices, tensors
from napari_txm_bgcorr.training import distributed, profiling, trainer
from napari_txm_bgcorr.training.config import load_config
from napari_txm_bgcorr.training.data import pairs
from napari_txm_bgcorr.training.data import storage as residency
from napari_txm_bgcorr.training.data.mixed import MixedPairs
from napari_txm_bgcorr.training.data.pairs import to_batch
from napari_txm_bgcorr.training.distributed import World, join
from napari_txm_bgcorr.training.run.folder import RunFolder
from napari_txm_bgcorr.training.run.status import Heartbeat, read_status
from napari_txm_bgcorr.training.trainer import Trainer
from tests.training.data.test_mixed import config, stack
from tests.training.toy import ToyPairs, toy_config


def busy():
    error = PermissionError(13, "Access is denied")
    error.winerror = 5
    return error


def failing(monkeypatch, place, name, times, error=None):
    """Let a function fail so many times."""
    real, left = getattr(place, name), [times]

    def call(*arguments, **options):
        left[0] -= 1
        if left[0] >= 0:
            raise error or busy()
        return real(*arguments, **options)

    monkeypatch.setattr(place, name, call)
    return left


# -- a run's folder that a panel reads ------------------------------------------------------


def test_a_run_writes_on_while_a_panel_has_its_files_open(tmp_path, monkeypatch):
    failing(monkeypatch, os, "replace", 3)
    RunFolder(tmp_path).save_preview(5, {"raw": np.ones((4, 4), np.float32)})
    assert RunFolder(tmp_path).read_preview()["step"] == 5
    heart = Heartbeat(tmp_path, 60)
    failing(monkeypatch, os, "replace", 3)
    heart.close("finished")
    assert read_status(tmp_path).state == "finished"  # else it would be taken for dead
    monkeypatch.setattr(files, "PATIENCE_S", 0.01)
    failing(monkeypatch, os, "replace", 1, OSError(28, "No space left on device"))
    with pytest.raises(WriteError, match="No space"):
        write_atomic(tmp_path / "x", b"")
    assert not list(tmp_path.glob(".x*"))


def test_a_panel_reads_a_status_that_is_just_replaced(tmp_path, monkeypatch):
    Heartbeat(tmp_path, 60).close("finished")
    monkeypatch.setattr(files, "_WINDOWS", True)
    left = failing(monkeypatch, type(tmp_path), "read_text", 2, PermissionError(13, "denied"))
    assert read_status(tmp_path).state == "finished" and left[0] == -1


def test_lines_are_not_told_twice_after_a_moment_without_access(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.log({"step": 1})
    _, offset = folder.read_metrics()
    with monkeypatch.context() as patch:
        failing(patch, type(tmp_path), "open", 1, PermissionError(13, "denied"))
        assert folder.read_metrics(offset) == ([], offset)
    folder.log({"step": 2})
    assert folder.read_metrics(offset)[0] == [{"step": 2}]


def test_an_old_checkpoint_that_is_open_does_not_end_a_run(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.save(1, {"step": 1}, keep=1)
    failing(monkeypatch, type(tmp_path), "unlink", 10**6)
    folder.save(2, {"step": 2}, keep=1)
    assert folder.newest()[0]["step"] == 2


def test_a_wish_is_withdrawn_although_the_run_reads_it(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.ask("pause", free_device=True)
    failing(monkeypatch, type(tmp_path), "unlink", 2)
    folder.withdraw("pause")
    assert folder.wish() == ""


def test_a_cache_on_a_drive_that_is_not_there_ends_the_search(monkeypatch):
    monkeypatch.setattr(residency.psutil, "virtual_memory", lambda: SimpleNamespace(available=1))
    monkeypatch.setattr(residency.Path, "exists", lambda self: False)
    place = residency.choose_residency("auto", 100, 64, torch.device("cpu"), "Q:/cache")
    assert place == "smart-cache"


# -- devices ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
    ],
)
def test_all_ways_to_run_out_of_memory_are_known(text):
    assert devices.is_out_of_memory(RuntimeError(text))
    assert not devices.is_out_of_memory(RuntimeError("CUDA error: device-side assert"))


@pytest.mark.parametrize(("generation", "wanted"), [(7, False), (8, True), (9, True)])
def test_bf16_is_chosen_only_where_the_device_computes_in_it(monkeypatch, generation, wanted):
    asked = []

    def capability(device):
        asked.append(device)
        return generation, 5

    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    assert devices.has_bf16("cuda:1") is wanted
    assert asked == [torch.device("cuda:1")]
    assert not devices.has_bf16("cpu") and not devices.has_bf16("mps")


def test_the_chosen_gpu_is_the_current_one(monkeypatch):
    """Streams, graphs and pinned memory go by it."""
    entered = []

    @contextmanager
    def current(place):
        entered.append(place)
        yield

    monkeypatch.setattr(torch.cuda, "device", current)
    monkeypatch.setattr(distributed, "choose_device", lambda wanted: wanted)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join("cuda:1") as (world, place):
        assert world.size == 1 and place == "cuda:1" and entered == [torch.device("cuda:1")]
    with join("cpu"):
        assert len(entered) == 1


@pytest.mark.parametrize("there", [True, False])
def test_without_nccl_processes_talk_by_gloo(monkeypatch, there):
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: there)
    assert distributed._backend("cuda:0") == ("cpu:gloo,cuda:nccl" if there else "gloo")
    assert distributed._backend("cpu") == "gloo"


def test_a_build_without_nvtx_trains(monkeypatch):
    def none(*_):
        raise RuntimeError("NVTX functions not installed. Are you sure you have a CUDA build?")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda.nvtx, "mark", none)
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", none)
    profiling._has_nvtx.cache_clear()
    try:
        with profiling.phase("data"):
            pass
    finally:
        profiling._has_nvtx.cache_clear()


def test_apple_gpus_leave_uneven_averages_to_the_cpu():
    class Apple(torch.Tensor):
        """Says that it is on such a GPU."""

        moved = 0

        @property
        def device(self):
            return torch.device("mps")

        def cpu(self):
            Apple.moved += 1
            return self.as_subclass(torch.Tensor)

    counts = torch.rand(1, 1, 100, 100)
    wanted = torch.nn.functional.interpolate(counts, (64, 64), mode="area")
    real = torch.Tensor.to
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.Tensor,
            "to",
            lambda t, to, *a, **k: t if getattr(to, "type", "") == "mps" else real(t, to, *a, **k),
        )
        assert torch.equal(tensors._area(counts.as_subclass(Apple), (64, 64)), wanted)
        assert Apple.moved == 1
        tensors._area(counts.as_subclass(Apple), (50, 50))  # a multiple stays where it is
    assert Apple.moved == 1


def test_ages_leave_an_apple_gpu_before_they_are_doubles(monkeypatch):
    """Which it does not know."""
    real, doubled = torch.Tensor.cpu, []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda t: real(t).as_subclass(OnCpu))
    double = torch.Tensor.double

    def checked(t):
        doubled.append(isinstance(t, OnCpu))
        return double(t)

    monkeypatch.setattr(torch.Tensor, "double", checked)
    times = np.array(["2026-05-01T00", "2026-05-01T06"], "datetime64[s]")
    only = {"p_no_prior": 0.0, "p_tile_median": 0.0, "p_smooth": 0.0}
    data = TrainingData(references=(stack(2, 2, times=times),))
    source = MixedPairs(config({"references": 1.0}, **only), data, torch.device("cpu"))
    for i in range(3):
        source.draw(i)
    assert len(doubled) > 3 and all(doubled)


class OnCpu(torch.Tensor):
    """Was asked to come to the CPU."""


# -- training --------------------------------------------------------------------------------


def test_an_attempt_that_ran_out_of_memory_holds_nothing_in_the_next(monkeypatch):
    """Else half a batch would not fit where the whole one's tensors still lie."""
    toy = toy_config(batch=4)
    made = Trainer(toy, "cpu")
    made.world = World(0, 2, 2)
    monkeypatch.setattr(World, "part", lambda self, batch: batch)
    monkeypatch.setattr(World, "least", lambda self, value: value)
    held, real = [], Trainer._losses

    def losses(self, part, pred, adversary):
        gc.collect()
        assert all(ref() is None for ref in held)
        held.append(weakref.ref(pred))
        if part.target.shape[0] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, part, pred, adversary)

    made.micro_batch = 4
    monkeypatch.setattr(Trainer, "_losses", losses)
    made.agree_on_memory(to_batch(ToyPairs(toy).draw(0)))
    assert len(held) == 3 and made.micro_batch == 1


def test_only_cuda_copies_do_not_wait(monkeypatch):
    """The source of a copy that does not wait must live on, which CUDA's allocator sees to."""
    toy = toy_config()
    made, seen, real = Trainer(toy, "cpu"), [], torch.Tensor.to
    batch = to_batch(ToyPairs(toy).draw(0))
    monkeypatch.setattr(
        torch.Tensor, "to", lambda t, *a, **k: seen.append(k) or real(t, torch.device("cpu"))
    )
    for kind, wanted in (("mps", False), ("cuda", True)):
        seen.clear()
        made.device = torch.device(kind)
        made._moved(batch)
        assert [k["non_blocking"] for k in seen] == [wanted] * 4


def test_precision_auto_asks_the_device(monkeypatch):
    made = Trainer(toy_config(precision="auto"), "cpu")
    monkeypatch.setattr(trainer, "trains_in_bf16", lambda device: True)
    with made._autocast():
        assert torch.is_autocast_enabled("cpu")
    monkeypatch.setattr(trainer, "trains_in_bf16", lambda device: False)
    with made._autocast():
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("native", [True, False])
def test_training_asks_the_cpu_and_correcting_does_not(monkeypatch, native):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    assert devices.trains_in_bf16("cpu") is native and not devices.has_bf16("cpu")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")  # an older torch
    assert not devices.trains_in_bf16("cpu") and not devices.trains_in_bf16("mps")


@pytest.mark.parametrize(
    ("device", "cores", "more", "expected"),
    [
        ("cuda:0", 6, {}, 5),
        ("cuda:0", 64, {}, 8),
        ("cuda:0", 64, {"system": "win32"}, 4),
        ("cuda:0", 64, {"processes": 4, "memory_gb": 24}, 4),
        ("cuda:0", 16, {"processes": 4}, 3),
        ("cuda:0", 16, {"memory_gb": 4}, 2),
        ("cuda:0", 16, {"shared_mb": 64}, 2),  # what a container gives
        ("cuda:0", 1, {}, 1),
        ("cpu", 2, {}, 1),
        ("cpu", 16, {}, 4),
        ("cuda:0", 16, {"wanted": 0}, 0),
        ("cpu", 2, {"wanted": 3}, 3),
    ],
)
def test_batches_are_drawn_by_as_many_processes_as_the_machine_can_hold(
    monkeypatch, tmp_path, device, cores, more, expected
):
    given = {"system": "linux", "processes": 1, "memory_gb": 96, "shared_mb": 2**20} | more
    monkeypatch.setattr(pairs, "cpu_cores", lambda: cores)
    monkeypatch.setattr(pairs.sys, "platform", given["system"])
    memory = SimpleNamespace(available=given["memory_gb"] * 2**30)
    monkeypatch.setattr(pairs.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(pairs, "SHARED", tmp_path)
    free = SimpleNamespace(free=given["shared_mb"] * 2**20)
    monkeypatch.setattr(pairs.shutil, "disk_usage", lambda _: free)
    wanted = given.get("wanted", "auto")
    settings = load_config("fine-tune", [f"data.workers={wanted}"])
    assert settings.batch == 8 and settings.network.field_px == 256
    assert pairs.worker_count(settings, device, given["processes"]) == expected


# -- the benchmark ---------------------------------------------------------------------------


def test_a_row_that_this_machine_cannot_do_is_told_and_the_others_go_on(monkeypatch):
    """Windows has no Triton for torch.compile, and a small GPU no room for batch 32."""
    rows = [
        Setting("naive loop"),
        Setting("one", source="device", detached=True, one_forward=True),
        Setting("compile", source="device", one_forward=True, compiled=True),
        Setting("naive loop, batch 4", batch=4),
    ]
    monkeypatch.setattr(bench, "settings_for", lambda device, batches: rows)
    pairs = np.random.default_rng(0).integers(0, 65536, (2, 2, 256, 256), np.uint16)
    monkeypatch.setattr(bench, "simulate_pairs", lambda count, *_: pairs)

    def none(network, *_, **__):
        def forward(*_):
            raise RuntimeError("Cannot find a working triton installation.\nmore")

        return forward

    monkeypatch.setattr(torch, "compile", none)
    options = bench.BenchOptions("cpu", minutes=0.001, batches=(4,), pairs=2, ngf=4)
    found = bench.bench_train(options)
    by_name = {(r["name"], r["fft"]): r for r in found["rows"]}
    assert "Cannot find a working triton" in by_name["compile", True]["note"]
    assert by_name["compile", False]["samples_per_s"] is None
    assert by_name["naive loop, batch 4", True]["samples_per_s"] > 0
    json.dumps(found)


def test_a_row_that_fails_gives_its_memory_back(monkeypatch):
    networks = make_networks("cpu", ngf=4)

    def visit(setting, networks, *_):
        for p in networks[0].parameters():
            p.grad = torch.zeros_like(p)
        networks[1].requires_grad_(False)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(bench, "_visit", visit)
    why = bench._attempt(Setting("batch 32"), networks, None, "cpu", Seen())
    assert "out of memory" in why
    assert all(p.grad is None for p in networks[0].parameters())
    assert all(p.requires_grad for p in networks[1].parameters())
    with pytest.raises(torch.OutOfMemoryError):
        bench._attempt(Setting("naive loop"), networks, None, "cpu", Seen())


def test_the_clock_waits_for_the_device_that_works(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    bench._wait("cuda:1")
    assert waited == ["cuda:1"]
