import pytest
import torch

from napari_txm_bgcorr.evaluation.benchmark import choice
from napari_txm_bgcorr.evaluation.benchmark.choice import OPTIONAL, decide, settle
from napari_txm_bgcorr.evaluation.benchmark.products import with_products
from napari_txm_bgcorr.evaluation.benchmark.training_step import (
    Setting,
    make_networks,
    settings_for,
)

ROWS = {
    "channels_last": "channels_last",
    "bf16": "bf16",
    "products": "coarse levels as matrix products",
}


def timed(**factors):
    """Seconds of a step that every flag in use multiplies by its factor."""

    def seconds(setting):
        made = 1.0
        for flag, factor in factors.items():
            made *= factor if getattr(setting, flag) else 1.0
        return made

    return seconds


def names_with(rows, flag):
    return [row.name for row in rows if getattr(row, flag)]


@pytest.mark.parametrize("slow", [(), ("bf16",), ("channels_last",), OPTIONAL])
def test_what_slows_is_measured_in_its_row_and_taken_out_below(slow):
    rows = settings_for("cpu", (4,))
    factors = {flag: 1.25 if flag in slow else 0.5 for flag in OPTIONAL}
    made = decide(rows, timed(**factors), rounds=1)
    assert [row.name for row in made] == [row.name for row in rows]
    by_name = {row.name: row for row in made}
    for flag, row in ROWS.items():
        assert getattr(by_name[row], flag)  # measured in any case
        assert getattr(by_name["batch 4"], flag) == (flag not in slow)
        gain = (
            "not kept: rows below would be 0.80 x" if flag in slow else "kept: rows below are 2.00"
        )
        assert by_name[row].note.startswith(gain)
        if flag in slow:
            assert names_with(made, flag) == [row]
    assert by_name["naive loop"] == rows[0]
    assert by_name["plain loop, detached"] == {r.name: r for r in rows}["plain loop, detached"]


def test_a_flag_that_pays_only_with_another_is_kept():
    def seconds(setting):
        both = setting.channels_last and setting.bf16
        return 0.5 if both else 1.0 + setting.channels_last + setting.bf16

    made = {row.name: row for row in decide(settings_for("cpu", (4,)), seconds, rounds=1)}
    assert made["batch 4"].channels_last and made["batch 4"].bf16


def test_the_fastest_round_of_each_counts_and_all_take_turns():
    asked = []

    def seconds(setting):
        asked.append(setting)
        busy = 100.0 if len(asked) <= 8 else 1.0  # the whole first round
        return busy * (0.9 if setting.bf16 else 1.0)

    made = {row.name: row for row in decide(settings_for("cpu", (4,)), seconds, rounds=2)}
    assert len(asked) == 16 and len(set(asked)) == 8
    assert asked[:8] == asked[8:]
    assert all(s.batch == 1 and s.one_forward and s.fused and not s.compiled for s in asked)
    assert made["fused Adam"].bf16 and "1.11 x" in made["bf16"].note


def test_rows_without_anything_to_decide_are_not_timed():
    def never(setting):
        raise AssertionError(setting)

    rows = [Setting("naive loop"), Setting("one", one_forward=True)]
    assert decide(rows, never) == rows
    gpu = settings_for("cuda:0", (8,))
    assert settle(gpu, (torch.nn.Identity(), torch.nn.Identity()), {}, "cuda:0", print) == gpu


def test_on_a_cpu_the_steps_themselves_are_timed(monkeypatch):
    stepped, said = [], []

    class Rig:
        def __init__(self, setting, networks, source, device):
            self.setting = setting
            assert source == "counts"

        def step(self, fft):
            stepped.append(self.setting)

        def release(self):
            stepped.append(None)

    monkeypatch.setattr(choice, "Rig", Rig)
    rows = settle(
        settings_for("cpu", (4,)), (None, None), {"device": "counts"}, "cpu", said.append
    )
    assert (
        len(stepped) == 3 * 8 * choice.ROUNDS and stepped[0] == stepped[1] and stepped[2] is None
    )
    assert len(said) == 3 and {line.partition(":")[0] for line in said} == set(ROWS.values())
    assert len(rows) == len(settings_for("cpu", (4,)))


@pytest.mark.parametrize("size", [256, 512])
@pytest.mark.parametrize("batch", [1, 3])
def test_products_give_what_the_convolutions_give(size, batch):
    network = make_networks("cpu", ngf=2)[0]
    twin = with_products(network)
    assert all(a is b for a, b in zip(network.parameters(), twin.parameters(), strict=True))
    x = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = network(x)
    torch.testing.assert_close(twin(x), expected, atol=1e-4, rtol=1e-4)
    expected.square().sum().backward()
    wanted = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    twin(x).square().sum().backward()
    for p, want in zip(network.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, want, atol=1e-3 * float(want.abs().max()), rtol=1e-3)
