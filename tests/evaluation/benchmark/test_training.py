import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.evaluation.benchmark import training as bench
from napari_txm_bgcorr.evaluation.benchmark.learning_curve import bench_curves, equal_error_table
from napari_txm_bgcorr.evaluation.benchmark.report import chart, curve_chart, text_table
from napari_txm_bgcorr.evaluation.benchmark.table import whole_run
from napari_txm_bgcorr.evaluation.benchmark.training import (
    RECIPE_SAMPLES,
    BenchOptions,
    Timing,
    bench_train,
)
from napari_txm_bgcorr.evaluation.benchmark.training_data import (
    SOURCES,
    Sources,
    _jitter_batch,
    write_pairs,
)
from napari_txm_bgcorr.evaluation.benchmark.training_step import (
    Rig,
    Setting,
    make_networks,
    settings_for,
)


@pytest.fixture(scope="module")
def pairs():
    return np.random.default_rng(0).integers(0, 65536, (3, 2, 256, 256), np.uint16)


@pytest.fixture(autouse=True)
def _few_pairs(monkeypatch, pairs):
    """Simulating costs more than what is tested here."""
    monkeypatch.setattr(bench, "simulate_pairs", lambda count, *_: pairs[:count])
    from napari_txm_bgcorr.evaluation.benchmark import learning_curve as bench_train_curve

    monkeypatch.setattr(bench_train_curve, "simulate_pairs", lambda count, *_: pairs)


class Fixed:
    """The same batch at every step."""

    def __init__(self, batch=1):
        rng = torch.Generator().manual_seed(3)
        self.x = torch.randn(batch, 3, 256, 256, generator=rng)
        self.true = 0.1 * torch.randn(batch, 1, 256, 256, generator=rng)

    def draw(self, batch):
        return self.x.clone(), self.true.clone()


@pytest.fixture(scope="module")
def networks():
    return make_networks("cpu", ngf=4)


def weights_after(setting, networks, batch=1, steps=2):
    made = copy.deepcopy(networks)
    rig = Rig(setting, made, Fixed(batch), "cpu")
    for _ in range(steps):
        rig.step(False)
    return [p.detach().clone().contiguous() for network in made for p in network.parameters()]


@pytest.mark.parametrize(
    "changes",
    [
        {"channels_last": True},
        {"fused": True},
        {"detached": True, "one_forward": True},
        {"products": True},
        {"channels_last": True, "fused": True, "detached": True, "one_forward": True},
        {"fused": True, "detached": True, "one_forward": True, "products": True},
    ],
)
def test_every_acceleration_makes_the_same_updates_as_the_plain_loop(networks, changes):
    plain = weights_after(Setting("plain"), networks)
    fast = weights_after(Setting("fast", **changes), networks)
    start = [p for network in networks for p in network.parameters()]
    moved = torch.cat([(a - b).flatten() for a, b in zip(plain, start, strict=True)])
    apart = torch.cat([(a - b).flatten() for a, b in zip(plain, fast, strict=True)])
    assert moved.abs().mean() > 1e-4
    # Adam turns rounding of near-zero gradients into whole steps: judge by the mean
    assert apart.abs().mean() < 0.03 * moved.abs().mean()


def test_the_plain_loop_lets_no_gradient_of_the_discriminator_step_reach_an_update(networks):
    """What the first pass leaves in the generator's gradients is thrown away."""
    made = copy.deepcopy(networks)
    rig = Rig(Setting("plain"), made, Fixed(), "cpu")
    rig.step(False)
    left = [p.grad.clone() for p in made[0].parameters()]
    again = copy.deepcopy(networks)
    other = Rig(Setting("fast", detached=True, one_forward=True), again, Fixed(), "cpu")
    other.step(False)
    for a, b in zip(left, again[0].parameters(), strict=True):
        torch.testing.assert_close(a, b.grad, atol=1e-4, rtol=1e-2)


@pytest.mark.parametrize("products", [False, True])
def test_bf16_makes_the_same_gradients_but_for_rounding(networks, products):
    grads = []
    for bf16 in (False, True):
        made = copy.deepcopy(networks)
        setting = Setting("fast", one_forward=True, bf16=bf16, products=products and bf16)
        Rig(setting, made, Fixed(), "cpu").step(False)
        grads.append([torch.cat([p.grad.flatten() for p in one.parameters()]) for one in made])
    for exact, rounded in zip(*grads, strict=True):
        assert rounded.dtype == torch.float32
        assert functional.cosine_similarity(exact, rounded, dim=0) > 0.98


def test_the_fft_loss_changes_the_update(networks):
    made = copy.deepcopy(networks), copy.deepcopy(networks)
    for one, fft in zip(made, (False, True), strict=True):
        Rig(Setting("fast", one_forward=True), one, Fixed(), "cpu").step(fft)
    a, b = ([p.grad for p in one[0].parameters()] for one in made)
    assert any(not torch.allclose(x, y, rtol=1e-3, atol=1e-6) for x, y in zip(a, b, strict=True))


def test_release_gives_gradients_and_optimiser_state_back(networks):
    made = copy.deepcopy(networks)
    rig = Rig(Setting("fast", one_forward=True), made, Fixed(), "cpu")
    rig.step(False)
    rig.release()
    assert not rig.adam_g.state and all(p.grad is None for p in made[0].parameters())


def test_files_and_memory_hold_the_same_samples(pairs, tmp_path):
    files = write_pairs(pairs, tmp_path)
    one, other = (SOURCES[name](pairs, files, "cpu") for name in ("files", "memory"))
    for _ in range(3):
        for a, b in zip(one.draw(2), other.draw(2), strict=True):
            assert torch.equal(a, b)


def test_counts_on_the_device_are_the_counts(pairs):
    held = SOURCES["device"](pairs, [], "cpu")
    assert held.counts.dtype == torch.int16
    np.testing.assert_array_equal(held.counts.numpy().astype(np.int32) + 32768, pairs)
    x, true = held.draw(2)
    assert x.shape == (2, 3, 256, 256) and true.shape == (2, 1, 256, 256)
    assert bool((x[:, 1:] == 0).all()) and x[:, 0].std() > 0.1


def test_jitter_on_the_device_cuts_raw_and_background_alike():
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    logs = torch.stack([y, x])[None].repeat(20, 1, 1, 1)
    cut = _jitter_batch(logs, torch.Generator().manual_seed(0))
    along_y, along_x = cut[:, 0].diff(dim=1), cut[:, 1].diff(dim=2)
    inside = slice(2, -2)
    assert torch.allclose(along_y[:, inside], torch.tensor(256 / 286), atol=1e-3)
    sign = along_x[:, 128, 128].sign()
    assert set(sign.tolist()) == {-1.0, 1.0}
    expected = (sign * 256 / 286)[:, None, None].expand_as(along_x[:, :, inside])
    assert torch.allclose(along_x[:, :, inside], expected, atol=1e-3)
    assert len(cut[:, 0, 128, 128].unique()) > 10


def test_rows_come_in_the_order_of_the_accelerations():
    names = [s.name for s in settings_for("cuda:0", (8, 32))]
    assert names[:8] == [
        "naive loop", "cached data", "device-resident data", "channels_last", "bf16",
        "fused Adam", "one generator forward, detached D", "batch 8",
    ]  # fmt: skip
    fastest = (
        "compile of G and D, batch 1",
        "CUDA graphs, batch 1",
        "compile and CUDA graphs, batch 1",
    )
    assert [names.index(n) for n in fastest] == sorted(names.index(n) for n in fastest)
    by_name = {s.name: s for s in settings_for("cuda:0", (8, 32))}
    both = by_name["compile and CUDA graphs, batch 32"]
    assert both.compiled and both.graphed and both.batch == 32 and both.needs_cuda
    assert not by_name["CUDA graphs, batch 32"].compiled
    by_name = {s.name: s for s in settings_for("mps", (4,))}
    assert by_name["bf16"].bf16 and not by_name["fused Adam"].bf16
    assert by_name["batch 4"].channels_last and by_name["batch 4"].fused
    assert {s.name: s for s in settings_for("cuda:0", (8,))}["batch 8"].bf16
    assert not any(s.products for d in ("cuda:0", "mps") for s in settings_for(d, (8,)))
    naive = by_name["naive loop"]
    assert naive == Setting("naive loop", source="files", batch=1)


@pytest.fixture(scope="module")
def result(pairs):
    patch = pytest.MonkeyPatch()
    patch.setattr(bench, "simulate_pairs", lambda count, *_: pairs[:count])
    torch.set_num_threads(1)
    said = []
    with patch.context():
        made = bench_train(
            BenchOptions(device="cpu", minutes=0.001, pairs=2, ngf=1, batches=(2,)), said.append
        )
    patch.undo()
    return made, said


def test_the_table_agrees_with_itself(result):
    made, said = result
    rows = {(row["name"], row["fft"]): row for row in made["rows"]}
    measured = [row for row in made["rows"] if row["samples_per_s"] is not None]
    for row in measured:
        naive = rows["naive loop", row["fft"]]
        expected = row["samples_per_s"] / naive["samples_per_s"]
        assert row["x_naive"] == pytest.approx(expected, rel=0.01, abs=2e-3)
        hours = RECIPE_SAMPLES / row["samples_per_s"] / 3600
        assert row["hours_published_recipe"] == pytest.approx(hours, rel=0.01)
        assert row["energy"]["source"]
    assert rows["naive loop", True]["x_naive"] == rows["naive loop", True]["x_equal_batch"] == 1
    assert rows["naive loop, batch 2", False]["x_equal_batch"] == 1
    absent = {row["name"] for row in made["rows"] if row["samples_per_s"] is None}
    assert absent and all("compile" in name or "graphs" in name for name in absent)
    assert all(
        row["note"] == "needs an NVIDIA GPU" for row in made["rows"] if row["name"] in absent
    )
    assert made["rounds"] == 1
    assert len([line for line in said if line.startswith("round 1")]) == len(measured) / 2
    told = {line.partition(":")[0] for line in said if "kept" in line}
    assert told == {"channels_last", "bf16", "coarse levels as matrix products"}
    assert all("kept: rows below" in rows[name, True]["note"] for name in told)
    assert {cost["batch"] for cost in made["fft_cost"]} == {1, 2}


def test_the_fastest_round_counts():
    timing = Timing()
    timing.add(4.0, 2, 3, None)
    timing.add(3.0, 2, 3, 5.0)
    assert min(timing.seconds) == 1.5 and timing.samples == 12 and timing.joules == 5.0


def test_measured_energy_is_scaled_to_the_whole_recipe():
    per_1000 = {"source": "rapl", "joules": 10.0, "kwh": 1.0, "joules_per_1000_samples": 2.0}
    whole = whole_run(per_1000, 1000)
    assert whole["joules"] == 30_000 and whole["kwh"] == 3000
    assert whole["joules_per_1000_samples"] == 2.0
    assert whole_run({"source": "not measured"}, 5) == {"source": "not measured"}


def test_the_text_names_every_row_and_the_published_figures(result):
    text = text_table(result[0])
    for row in result[0]["rows"]:
        assert row["name"] in text
    for figure in ("44.17", "156.67", "4.90", "7.20", "needs an NVIDIA GPU"):
        assert figure in text
    assert ("not measured" in text) == (result[0]["rows"][0]["energy"].get("joules") is None)


def test_the_chart_is_a_picture(result, tmp_path):
    pytest.importorskip("matplotlib")
    chart(result[0], tmp_path / "bars.svg")
    text = (tmp_path / "bars.svg").read_text()
    assert text.lstrip().startswith("<?xml") and len(text) > 5000
    with pytest.raises(ConfigError, match=r"bars.nothing"):
        chart(result[0], tmp_path / "bars.nothing")


def test_curves_share_time_and_start_from_the_same_error(tmp_path):
    curves = bench_curves(
        BenchOptions(device="cpu", minutes=0.0001, pairs=2, ngf=1, batches=(2,)), lambda _: None
    )
    made = {curve["name"]: curve["points"] for curve in curves["curves"]}
    assert {"naive loop", "plain loop, detached", "batch 2"} <= made.keys()
    starts = [points[0]["error"] for points in made.values()]
    assert max(starts) - min(starts) < 1e-3 * min(starts)  # some predict in bf16
    for curve in curves["curves"]:
        points = curve["points"]
        assert len(points) == 13 and points[-1]["samples"] == 12 * curve["batch"]
        assert all(a["seconds"] < b["seconds"] for a, b in pairwise(points))
    pytest.importorskip("matplotlib")
    curve_chart(curves, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"


def test_time_to_equal_error_is_told():
    def curve(name, *errors):
        points = [{"seconds": 10.0 * i, "samples": i, "error": e} for i, e in enumerate(errors)]
        return {"name": name, "batch": 1, "points": points}

    text = equal_error_table(
        {
            "curves": [
                curve("naive loop", 0.3, 0.2, 0.1),
                curve("fast", 0.3, 0.1, 0.05),
                curve("bad", 0.3, 0.2, 0.2),
            ]
        }
    )
    assert "10.00 %" in text and "2.0 x" in text and "not reached" in text


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"minutes": 0}, "--minutes-total 0"),
        ({"pairs": 0}, "--pairs 0"),
        ({"batches": (1,)}, "--batch 1"),
        ({"field_px": 100}, "--field-px 100"),
    ],
)
def test_options_that_measure_nothing_are_refused(wrong, match):
    with pytest.raises(ConfigError, match=match):
        BenchOptions(**wrong)


def test_a_source_is_opened_once(pairs, tmp_path):
    sources = Sources(pairs, tmp_path, "cpu")
    assert sources["memory"] is sources["memory"]


def test_rows_are_chosen_by_name_and_told_one_after_the_other():
    kept = []
    options = BenchOptions(
        device="cpu", minutes=0.001, pairs=1, ngf=1, batches=(2,), rows="^(batch|CUDA)"
    )
    made = bench_train(options, keep=lambda result: kept.append(copy.deepcopy(result)))
    names = ["batch 2", "CUDA graphs, batch 1", "CUDA graphs, batch 2"]
    assert [row["name"] for row in made["rows"][::2]] == names
    assert made["rows"][0]["samples_per_s"] > 0 and made["rows"][0]["x_naive"] is None
    assert kept[-1]["rows"] == made["rows"] and len(kept) == 1
    assert "batch 2" in text_table(made)


@pytest.mark.parametrize(("rows", "said"), [("nothing", "no such row"), ("(", "no regular")])
def test_names_that_find_no_row_are_refused(rows, said):
    with pytest.raises(ConfigError, match=said):
        bench_train(BenchOptions(device="cpu", rows=rows))
