"""The same work on an NVIDIA GPU as on the CPU: results, memory, and what happens without memory.

Without a GPU the tests are skipped. With ``TXM_BGCORR_STAND_IN=cpu`` the CPU stands in for it,
so that a slip in a test is found before a GPU is at hand; what it cannot show is said.
"""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from napari_txm_bgcorr.backgrounds import generator as predict
from napari_txm_bgcorr.backgrounds.generator import Generator
from napari_txm_bgcorr.core.correction import correct_tiles
from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.evaluation.benchmark.training_step import (
    WARM_UP,
    Rig,
    Setting,
    make_networks,
)
from napari_txm_bgcorr.simulation.acquisition import simulate_mosaic
from napari_txm_bgcorr.training.loop import Trainer, fit, run_training
from napari_txm_bgcorr.training.run.folder import RunFolder, read_checkpoint
from napari_txm_bgcorr.workflows.simulate import write_simulation
from tests.training.toy import toy_config

pytestmark = pytest.mark.cuda
STAND_IN = os.environ.get("TXM_BGCORR_STAND_IN", "")
GAN = {"l1": 1.0, "fft_l1": 0.1, "adversarial": 0.01}
# Largest and rms relative difference of backgrounds from float32 on the CPU. A GPU convolves
# "float32" in TF32, with 10 bits after the point; bfloat16 has 7.
TOLERANCE = {"fp32": (5e-3, 1e-3), "bf16": (2e-2, 3e-3)}
# Relative difference of the validation error after a short training.
TRAINED = {"fp32": 0.03, "bf16": 0.10}
ROOM = 400 * 2**20  # bytes that the test of too little memory leaves free


@pytest.fixture
def device():
    if torch.cuda.is_available():
        yield "cuda:0"
        predict.release()
    elif STAND_IN:
        yield STAND_IN
    else:
        pytest.skip("needs an NVIDIA GPU")


@pytest.fixture(scope="module")
def scan():
    side = 3 if torch.cuda.is_available() else 2
    return simulate_mosaic(side, side, size=128, seed=1).scan


def assert_close(got, expected, precision):
    apart = np.abs(np.log(got / expected))
    most, rms = TOLERANCE[precision]
    assert apart.max() < most and np.sqrt(np.mean(apart**2)) < rms


def held(device):
    """Bytes of all tensors on the device."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        getattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None)()  # kept between calls
        return torch.cuda.memory_allocated(device)
    tensors = [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor)]
    return sum({x.data_ptr(): x.untyped_storage().nbytes() for x in tensors}.values())


def assert_gives_memory_back(device, work):
    work()  # libraries keep what they set up at first use
    before = held(device)
    work()
    assert held(device) == before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_generator_agrees_with_the_cpu(device, scan, precision):
    expected = Generator("default", "cpu", precision="fp32").fit(scan)
    got = Generator("default", device, precision=precision).fit(scan)
    assert_close(got.background(scan.tiles), expected.background(scan.tiles), precision)
    cells = [method.predict_cells(scan.tiles[0]).log_background for method in (got, expected)]
    assert_close(*np.exp(cells), precision)


@pytest.fixture
def little_memory(device, monkeypatch):
    """Call it to leave room for a few tiles of 1024 px only."""

    def on_gpu(method):
        gc.collect()
        torch.cuda.empty_cache()
        total = torch.cuda.mem_get_info(device)[1]
        share = (torch.cuda.memory_reserved(device) + ROOM) / total
        torch.cuda.set_per_process_memory_fraction(share, device)

    def stand_in(method):
        method.batch, real = 16, method._outputs

        def forward(x):
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return real(x)

        monkeypatch.setattr(method, "_outputs", forward)

    if not device.startswith("cuda"):
        yield stand_in
        return
    yield on_gpu
    torch.cuda.set_per_process_memory_fraction(1.0, device)


def test_the_batch_is_halved_where_memory_runs_out(device, scan, little_memory):
    size, count = (1024, 32) if device.startswith("cuda") else (128, 4)
    tiles = np.repeat(np.asarray(scan.tiles[:1], np.float32), count, axis=0)
    tiles = np.kron(tiles, np.ones((size // 128,) * 2, np.float32))
    names = tuple(f"t{i}" for i in range(count))
    series = Scan(tiles, "series", Source(Path("made.tif"), "test"), names)
    alone = Generator("default", device).fit(series).background(tiles[:1])
    method = Generator("default", device, batch=32).fit(series)
    little_memory(method)
    with pytest.warns(RuntimeWarning, match="out of memory; going on with"):
        got = method.background(tiles)
    assert 1 <= method.batch < 32
    assert_close(got, np.repeat(alone, count, axis=0), "bf16")


def test_a_cancelled_correction_gives_its_memory_back(device, scan):
    def work():
        method = Generator("default", device).fit(scan)
        results = correct_tiles(scan, method, batch=2)
        assert next(results).valid.any()
        results.close()
        del method, results
        predict.release()

    assert_gives_memory_back(device, work)


@pytest.mark.parametrize("stops", [False, True])
def test_a_training_gives_its_memory_back(device, tmp_path, stops):
    runs = iter(range(2))

    def work():
        run = tmp_path / str(next(runs))

        def on_step(step):
            if stops and step.step == 5:
                RunFolder(run).ask("stop")

        config = toy_config(loss_weights=GAN, precision="auto")
        run_training(config, run, device=device, on_step=on_step)
        newest = sorted((run / "checkpoints").glob("*.ckpt"))[-1]
        assert (read_checkpoint(newest)["step"] < 20) is stops

    assert_gives_memory_back(device, work)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_agrees_with_the_cpu(device, precision):
    def last_error(place, precision):
        config = toy_config(loss_weights=GAN, precision=precision)
        trainer = Trainer(config, place)
        assert trainer.device == torch.device(place)
        return list(fit(config, trainer))[-1].validation["mean"]

    expected = last_error("cpu", "fp32")
    assert last_error(device, precision) == pytest.approx(expected, rel=TRAINED[precision])


def test_the_command_corrects_a_mosaic(device, tmp_path):
    write_simulation(simulate_mosaic(3, 3, size=128, seed=2), tmp_path / "raw", {"kind": "mosaic"})
    made = {}
    for place in {device, "cpu"}:
        out = tmp_path / f"out-{place.replace(':', '')}"
        command = [
            sys.executable, "-W", "ignore", "-c", "from napari_txm_bgcorr.cli import main; main()",
            "correct", str(tmp_path / "raw"), "-o", str(out), "--format", "tiff",
            "--device", place, "--json", "--overwrite",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["results"][0]["device"] == place
        files = sorted(out.glob("**/background/*.tif*"))
        assert len(files) == 9
        made[place] = np.stack([tifffile.imread(file) for file in files])
    assert_close(made[device], made["cpu"], "bf16")


def test_a_step_as_one_cuda_graph_makes_the_same_update(device):
    if not device.startswith("cuda"):
        pytest.skip("the CPU has no CUDA graphs")

    class Fixed:
        def draw(self, batch):
            rng = torch.Generator().manual_seed(3)
            x = torch.randn(batch, 3, 256, 256, generator=rng)
            return x.to(device), 0.1 * x[:, :1].to(device)

    made = []
    for on in (False, True):
        networks = make_networks(device, ngf=4)
        setting = Setting("one", one_forward=True, detached=True, fused=True, graphed=on)
        rig = Rig(setting, networks, Fixed(), device)
        for _ in range(1 if on else 1 + WARM_UP):  # so many precede the capture
            rig.step(True)
        made.append(torch.cat([p.detach().flatten() for p in networks[0].parameters()]))
    start = torch.cat([p.flatten() for p in make_networks(device, ngf=4)[0].parameters()])
    moved = (made[0] - start).abs().mean()
    assert moved > 1e-4 and (made[1] - made[0]).abs().mean() < 0.1 * moved
