"""What goes wrong in a training is seen, named and dealt with."""

import json
import math

import pytest
import torch

from napari_txm_bgcorr.errors import ConfigError, DeviceError
from napari_txm_bgcorr.training.data.pairs import build_pairs, to_batch
from napari_txm_bgcorr.training.loop import Trainer, TrainError, fit, run_training
from napari_txm_bgcorr.training.run.folder import RunFolder
from napari_txm_bgcorr.training.watchdog import CHANCE, Diverged, Watchdog, WatchdogConfig
from tests.training.test_loop import GAN, assert_same, newest, weights
from tests.training.toy import ToyPairs, toy_config


def spoil(monkeypatch, at, times, how):
    """Spoil a weight just before step `at`, the first `times` times it is reached."""
    real, left = Trainer.train_step, [times]

    def step(self, batch):
        if self.step == at and left[0]:
            left[0] -= 1
            with torch.no_grad():
                how(next(self.generator.parameters()))
        return real(self, batch)

    monkeypatch.setattr(Trainer, "train_step", step)


@pytest.mark.parametrize("how", [lambda w: w.fill_(math.nan), lambda w: w.mul_(1e4)])
def test_spoilt_weights_are_replaced_by_the_last_good_ones_at_a_lower_rate(
    tmp_path, monkeypatch, how
):
    spoil(monkeypatch, 22, 1, how)
    config = toy_config(steps=40, lr=3e-3)
    run_training(config, tmp_path, device="cpu")
    status = RunFolder(tmp_path).status()
    (warning,) = status.warnings
    assert status.state == "finished" and "back to step 20" in warning
    assert "1 of at most 3" in warning and warning in (tmp_path / "log.txt").read_text()
    held = newest(tmp_path)
    assert held["step"] == 40 and held["rate_scale"] == 0.5
    assert all(torch.isfinite(w).all() for w in weights(tmp_path).values())
    lines = [json.loads(t) for t in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(0, 41, 5))
    assert lines[5]["losses"]["total"] < 1


def test_a_checkpoint_that_leads_astray_is_not_used_twice(tmp_path, monkeypatch):
    """Weights spoilt so little that the checkpoint after still looks sound."""
    spoil(monkeypatch, 21, 2, lambda w: w.fill_(math.nan))
    went = []
    real = Trainer.restore

    def restore(self, held):
        went.append(held["step"])
        real(self, held)

    monkeypatch.setattr(Trainer, "restore", restore)
    run_training(toy_config(steps=30), tmp_path, device="cpu")
    assert went == [20, 15]
    assert newest(tmp_path)["rate_scale"] == 0.25


def test_a_run_that_diverges_again_and_again_ends_and_names_it(tmp_path, monkeypatch):
    spoil(monkeypatch, 12, 99, lambda w: w.fill_(math.nan))
    config = toy_config(watchdog={"rollbacks": 2})
    with pytest.raises(
        TrainError, match=r"step 15: loss l1 is nan; went back 2 times .* lower lr"
    ):
        run_training(config, tmp_path, device="cpu")
    status = RunFolder(tmp_path).status()
    assert status.state == "failed" and "went back 2 times" in status.error
    assert newest(tmp_path)["step"] <= 10
    assert all(torch.isfinite(w).all() for w in weights(tmp_path).values())


def test_a_run_that_diverges_before_its_first_checkpoint_starts_again(tmp_path, monkeypatch):
    spoil(monkeypatch, 2, 1, lambda w: w.fill_(math.nan))
    run_training(toy_config(steps=10, checkpoint_every=10), tmp_path, device="cpu")
    logged = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in logged] == [0, 5, 10]
    assert newest(tmp_path)["rollbacks"] == 1


def test_spoilt_weights_are_never_saved(tmp_path, monkeypatch):
    spoil(monkeypatch, 3, 99, lambda w: w.fill_(math.nan))
    config = toy_config(log_every=20, checkpoint_every=1, validate_every=20)
    with pytest.raises(TrainError):
        run_training(config, tmp_path, device="cpu")
    assert newest(tmp_path)["step"] == 3  # of step 3: the last that was whole


def judge(values, **settings):
    dog = Watchdog(WatchdogConfig(**settings), {"l1": 1.0}, "hinge")
    for step, value in enumerate(values):
        dog.judge({"l1": value}, step)
    return dog


def test_explosion_is_told_from_noise():
    judge([1, 0.1, 0.02, 0.05, 0.01, 0.2, 0.02])
    with pytest.raises(Diverged, match=r"step 4: losses explode \(9, lately 0.1\)"):
        judge([0.1, 0.1, 0.1, 0.1, 9])
    with pytest.raises(Diverged, match="loss l1 is inf"):
        judge([0.1, math.inf])
    judge([0.1, 0.1, 0.1, 0.1, 9], explode=100)
    dog = judge([1, 2, 3])
    other = Watchdog(dog.config, dog.content, "hinge")
    other.restore(dog.state())
    assert other.recent == dog.recent


@pytest.mark.parametrize("mode", CHANCE)
def test_a_discriminator_that_wins_is_tamed_then_switched_off(mode):
    config = toy_config(loss_weights=GAN, adversarial_mode=mode, watchdog={"collapse_after": 2})
    trainer = Trainer(config, "cpu")
    won, fair = {"discriminator": 1e-4}, {"discriminator": CHANCE[mode]}
    dog = trainer.watchdog
    assert [dog.collapsed(x) for x in (won, fair, won, won, won, won)] == [
        False, False, False, True, False, True
    ]  # fmt: skip
    said = [trainer.tame_discriminator() for _ in range(4)]
    assert said[0] == "it now learns every 2 steps"
    assert said[-1] == "the adversarial part is switched off"
    batch = to_batch(build_pairs(config).draw(0))
    trainer.step = 19
    assert "adversarial" not in trainer.train_step(batch)


def test_a_tamed_discriminator_learns_at_fewer_steps():
    config = toy_config(loss_weights=GAN, adversarial_start=0)
    trainer, source = Trainer(config, "cpu"), build_pairs(config)
    trainer.discriminator_every = 2
    changed = []
    for index in range(4):
        before = {k: v.clone() for k, v in trainer.discriminator.state_dict().items()}
        trainer.train_step(to_batch(source.draw(index)))
        after = trainer.discriminator.state_dict()
        changed.append(any(not torch.equal(before[k], after[k]) for k in before))
    assert changed == [True, False, True, False]


def test_a_collapse_is_told_in_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "napari_txm_bgcorr.training.trainer.discriminator_loss",
        lambda real, fake, mode: 0 * (real.mean() + fake.mean()),
    )
    config = toy_config(
        loss_weights=GAN,
        adversarial_start=0,
        watchdog={"collapse": "off", "collapse_after": 2},
    )
    run_training(config, tmp_path, device="cpu")
    (warning,) = RunFolder(tmp_path).status().warnings
    assert warning.startswith("step 10: the discriminator has won") and "off" in warning
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert "adversarial" not in last["losses"] and "l1" in last["losses"]


# -- memory -----------------------------------------------------------------------------------


def short_of_memory(trainer, tiles):
    """Let the generator run out of memory with more than `tiles` at once."""
    real = trainer.generator.forward

    def forward(x):
        if x.shape[0] > tiles:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return real(x)

    trainer.generator.forward = forward


@pytest.mark.parametrize("losses", [{"l1": 1.0, "frc": 0.1, "level": 0.2}, GAN])
def test_out_of_memory_halves_what_is_at_once_and_changes_nothing_else(losses):
    # plain descent: Adam would turn rounding into steps of full size where gradients are nil
    config = toy_config(loss_weights=losses, batch=6, adversarial_start=0, ema=0.5)
    whole, short = Trainer(config, "cpu"), Trainer(config, "cpu")
    short_of_memory(short, 2)
    source = build_pairs(config)
    for trainer in (whole, short):
        trainer.optimizer = torch.optim.SGD(trainer.generator.parameters(), lr=0.1)
    for index in range(3):
        batch = to_batch(source.draw(index))
        told, also = whole.train_step(batch), short.train_step(batch)
        assert told.keys() == also.keys()
        for name in told:
            torch.testing.assert_close(told[name], also[name], rtol=2e-4, atol=1e-5, msg=name)
    assert (whole.micro_batch, short.micro_batch) == (6, 2)
    assert len(short.news) == 2 and "out of memory with 6 tiles at once" in short.news[0]
    for a, b in zip(whole.generator.parameters(), short.generator.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5)


def test_memory_that_does_not_suffice_for_one_tile_ends_the_run(tmp_path, monkeypatch):
    real = Trainer.__init__

    def init(self, *args, **kwargs):
        real(self, *args, **kwargs)
        short_of_memory(self, 0)

    monkeypatch.setattr(Trainer, "__init__", init)
    with pytest.raises(DeviceError, match="cpu: too little memory for one tile; choose a smaller"):
        run_training(toy_config(), tmp_path, device="cpu")
    assert "too little memory" in RunFolder(tmp_path).status().error


def test_parts_may_be_wanted_from_the_start_and_survive_a_resume():
    config = toy_config(micro_batch=3, loss_weights=GAN, adversarial_start=0)
    trainer = Trainer(config, "cpu")
    trainer.train_step(to_batch(build_pairs(config).draw(0)))
    trainer.micro_batch = 1
    other = Trainer(config, "cpu")
    other.restore(trainer.state())
    assert other.micro_batch == 1
    assert_same(other.state(), trainer.state())


# -- data -------------------------------------------------------------------------------------


def test_data_that_do_not_fit_are_named_before_the_first_step(monkeypatch):
    real = ToyPairs.draw
    wrong = {
        r"inputs of shape \(4, 3, 32, 24\).* want \(4, 3, 32, 32\)": lambda t: t[..., :24],
        r"inputs of shape \(3, ": lambda t: t[:3],
        "the set is empty": lambda t: t[:0],
    }
    for match, cut in wrong.items():
        monkeypatch.setattr(
            ToyPairs,
            "draw",
            lambda self, index, cut=cut: type(p := real(self, index))(
                *(cut(t) for t in p[:4]), p.rms[: cut(p[0]).shape[0]], cut(p.free)
            ),
        )
        with pytest.raises(TrainError, match=match):
            list(fit(toy_config(), Trainer(toy_config(), "cpu")))


def test_an_empty_validation_set_is_named(monkeypatch):
    monkeypatch.setattr(ToyPairs, "validation", lambda self: {})
    with pytest.raises(ConfigError, match="the validation set is empty"):
        next(fit(toy_config(), Trainer(toy_config(), "cpu")))


def test_data_that_end_early_are_named(monkeypatch):
    monkeypatch.setattr(
        "napari_txm_bgcorr.training.loop.batches",
        lambda source, *_: iter([to_batch(source.draw(0))]),
    )
    with pytest.raises(TrainError, match="step 1: the data ended early"):
        list(fit(toy_config(), Trainer(toy_config(), "cpu")))


def test_patience_ends_a_run_that_gets_no_better(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "napari_txm_bgcorr.training.trainer.Trainer.validate",
        lambda trainer, cases: {"none": 0.1, "mean": 0.1},
    )
    config = toy_config(steps=100, validate_every=5, patience=3)
    run_training(config, tmp_path, device="cpu")
    status = RunFolder(tmp_path).status()
    assert (status.state, status.step) == ("finished", 15)
    assert status.reason == "no better for 3 validations"
