"""The training step: parts as one, a state that restores, counters that count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_txm_bgcorr.models.tensors import Batch
from napari_txm_bgcorr.training.data.pairs import build_pairs, to_batch
from napari_txm_bgcorr.training.run.folder import read_checkpoint, write_checkpoint
from napari_txm_bgcorr.training.trainer import RAREST_DISCRIMINATOR, Trainer
from tests.training.test_loop import GAN, assert_same
from tests.training.toy import toy_config


def batch_of(config: Any, index: int = 0) -> Batch:
    return to_batch(build_pairs(config).draw(index))


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


def test_the_seed_alone_decides_the_first_weights() -> None:
    torch.manual_seed(99)
    one = Trainer(toy_config(loss_weights=GAN), "cpu")
    torch.manual_seed(1)
    two, other = Trainer(toy_config(loss_weights=GAN), "cpu"), Trainer(toy_config(seed=3), "cpu")
    assert_same(one.state(), two.state())
    assert not same_weights(one.generator, other.generator)


def test_the_average_starts_as_the_weights_and_never_learns() -> None:
    trainer = Trainer(toy_config(), "cpu")
    assert same_weights(trainer.generator, trainer.average)
    assert not any(p.requires_grad for p in trainer.average.parameters())
    assert trainer.generator.training and not trainer.average.training


@pytest.mark.parametrize("parts", [1, 4, 5])
def test_uneven_parts_make_the_step_of_the_whole_batch(parts: int) -> None:
    """Of 6 tiles 4 + 2, 5 + 1 and six single ones: each tile counts alike."""
    config = toy_config(loss_weights=GAN, batch=6, adversarial_start=0, clip=1e9)
    whole = Trainer(config, "cpu")
    cut = Trainer(config.model_copy(update={"micro_batch": parts}), "cpu")
    assert (whole.micro_batch, cut.micro_batch) == (6, parts)
    for trainer in (whole, cut):
        trainer.optimizer = torch.optim.SGD(trainer.generator.parameters(), lr=0.1)
        trainer.optimizer_d = torch.optim.SGD(trainer.discriminator.parameters(), lr=0.1)
    for index in range(2):
        batch = batch_of(config, index)
        told, also = whole.train_step(batch), cut.train_step(batch)
        assert told.keys() == also.keys()
        for name in told:
            torch.testing.assert_close(told[name], also[name], rtol=5e-4, atol=1e-5, msg=name)
    for name in ("generator", "average", "discriminator"):
        pairs = zip(
            getattr(whole, name).parameters(), getattr(cut, name).parameters(), strict=True
        )
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=3e-5, msg=name)


@pytest.mark.parametrize("changes", [{}, {"loss_weights": GAN, "adversarial_start": 0.0}])
def test_a_state_restores_the_next_step_bit_for_bit(tmp_path: Any, changes: Any) -> None:
    config = toy_config(**changes)
    trainer = Trainer(config, "cpu")
    for index in range(3):
        trainer.train_step(batch_of(config, index))
    trainer.rate_scale, trainer.rollbacks, trainer.since_best = 0.25, 2, 3
    trainer.best, trainer.validation_start, trainer.elapsed_s = 0.125, 0.5, 12.5
    write_checkpoint(tmp_path / "a.ckpt", trainer.state())
    later = Trainer(config.model_copy(update={"seed": config.seed}), "cpu")
    with torch.no_grad():
        for p in later.generator.parameters():
            p.normal_()
    later.busy = True
    later.restore(read_checkpoint(tmp_path / "a.ckpt"))
    assert_same(trainer.state(), later.state())
    assert later.elapsed_s == 12.5 and not later.busy and later.rate() == trainer.rate()
    random = [torch.rand(3)]
    later.restore(read_checkpoint(tmp_path / "a.ckpt"))
    assert torch.equal(torch.rand(3), random[0])
    batch = batch_of(config, 3)
    assert_same(trainer.train_step(batch), later.train_step(batch))
    assert_same(
        {k: v for k, v in trainer.state().items() if k != "rng"},
        {k: v for k, v in later.state().items() if k != "rng"},
    )


def test_a_state_is_not_changed_by_going_on() -> None:
    """What is restored after a divergence must be what was saved."""
    config = toy_config()
    trainer = Trainer(config, "cpu")
    trainer.train_step(batch_of(config))
    held = trainer.state()
    counters = {k: v for k, v in held.items() if isinstance(v, (int, float))}
    trainer.train_step(batch_of(config, 1))
    assert {k: held[k] for k in counters} == counters
    assert trainer.state()["step"] == 2


def test_a_state_of_an_older_version_keeps_what_it_lacks() -> None:
    trainer, old = Trainer(toy_config(), "cpu"), Trainer(toy_config(), "cpu").state()
    for key in ("watchdog", "pending", "energy", "rollbacks", "discriminator_every"):
        del old[key]
    trainer.rollbacks = 1
    trainer.restore(old)
    assert trainer.rollbacks == 1 and trainer.pending == {} and trainer.discriminator_every == 1


def test_the_smaller_of_two_part_sizes_is_kept() -> None:
    held = Trainer(toy_config(micro_batch=2), "cpu").state()
    for own, kept in ((1, 1), (4, 2)):
        trainer = Trainer(toy_config(micro_batch=own), "cpu")
        trainer.restore(held)
        assert trainer.micro_batch == kept


# -- counting -----------------------------------------------------------------------------------


def test_losses_are_averaged_since_they_were_last_taken() -> None:
    config = toy_config()
    trainer = Trainer(config, "cpu")
    first, second = (trainer.train_step(batch_of(config, k)) for k in range(2))
    peeked = trainer.take_pending(clear=False)
    assert peeked == trainer.take_pending()
    assert peeked.keys() == first.keys()
    for name in first:
        assert peeked[name] == pytest.approx(float(first[name] + second[name]) / 2, rel=1e-5)
    assert trainer.take_pending() == {} and trainer.pending_steps == 0
    third = trainer.train_step(batch_of(config, 2))
    assert trainer.take_pending()["l1"] == pytest.approx(float(third["l1"]))
    assert trainer.step == 3 and not trainer.busy


@pytest.mark.parametrize("where", ["inputs", "target"])
def test_tiles_that_hold_no_numbers_are_counted(where: str) -> None:
    config = toy_config()
    trainer, batch = Trainer(config, "cpu"), batch_of(config)
    assert float(trainer.train_step(batch)["bad_tiles"]) == 0
    spoiled = getattr(batch, where).clone()
    spoiled[1, 0, 3, 4], spoiled[3, 0, 0, 0] = math.nan, math.inf
    assert float(trainer.train_step(batch._replace(**{where: spoiled}))["bad_tiles"]) == 2


def test_weights_that_are_no_numbers_are_seen() -> None:
    for value in (math.nan, math.inf):
        trainer = Trainer(toy_config(), "cpu")
        assert trainer.whole()
        with torch.no_grad():
            list(trainer.generator.parameters())[-1].view(-1)[-1] = value
        assert not trainer.whole()


def test_a_step_that_fails_leaves_the_mark_that_it_was_half_done() -> None:
    config = toy_config()
    trainer = Trainer(config, "cpu")

    def fail(x: Any) -> None:
        raise ValueError("no memory matter")

    trainer.generator.forward = fail  # type: ignore[method-assign, assignment]
    with pytest.raises(ValueError, match="no memory matter"):
        trainer.train_step(batch_of(config))
    assert trainer.busy and trainer.step == 0 and trainer.micro_batch == 4


@settings(deadline=None, max_examples=50)
@given(
    step=st.integers(0, 300),
    elapsed=st.floats(0, 1e4),
    minutes=st.one_of(st.none(), st.floats(0.1, 100)),
)
def test_progress_is_that_of_whichever_ends_first(
    step: int, elapsed: float, minutes: float | None
) -> None:
    trainer = object.__new__(Trainer)
    trainer.config = toy_config(steps=200, minutes=minutes)
    trainer.step, trainer.elapsed_s = step, elapsed
    shares = [step / 200] + ([elapsed / 60 / minutes] if minutes else [])
    assert trainer.progress() == pytest.approx(min(1.0, max(shares)))


def test_the_rate_is_lowered_by_what_the_watchdog_found() -> None:
    config = toy_config(schedule="constant", warmup=0.0, lr=0.01)
    trainer = Trainer(config, "cpu")
    trainer.rate_scale = 0.25
    trainer.train_step(batch_of(config))
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.0025)


# -- losses and the adversary -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ({"l1": 1.0, "level": 0.0}, {"l1"}),
        ({"l1": 0.0, "level": 0.5, "frc": 0.1}, {"level", "frc"}),
        ({"l1": 1.0, "level": 0.0, "likelihood": 1.0, "free": 1.0}, {"l1"}),  # no such outputs
    ],
)
def test_only_losses_with_a_weight_are_computed(weights: Any, named: set[str]) -> None:
    config = toy_config(loss_weights=weights)
    losses = Trainer(config, "cpu").train_step(batch_of(config))
    assert losses.keys() == named | {"total", "grad_norm", "bad_tiles"}
    total = sum(weights[name] * float(losses[name]) for name in named)
    assert float(losses["total"]) == pytest.approx(total, rel=1e-5)


def test_the_likelihood_waits_for_its_share_of_the_run() -> None:
    network = {"field_px": 32, "features": (8, 8, 16), "probabilistic": True}
    config = toy_config(
        network=network, loss_weights={"l1": 1.0, "likelihood": 0.1}, likelihood_start=0.5
    )
    trainer = Trainer(config, "cpu")
    assert "likelihood" not in trainer.train_step(batch_of(config))
    trainer.step = 10
    assert "likelihood" in trainer.train_step(batch_of(config))


def test_a_discriminator_that_was_switched_off_neither_acts_nor_learns() -> None:
    config = toy_config(loss_weights=GAN, adversarial_start=0.0)
    trainer = Trainer(config, "cpu")
    assert trainer.discriminator is not None
    trainer.discriminator_every = 0
    before = [p.clone() for p in trainer.discriminator.parameters()]
    losses = trainer.train_step(batch_of(config))
    assert not {"adversarial", "discriminator"} & losses.keys()
    after = list(trainer.discriminator.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_taming_goes_step_by_step_to_the_end() -> None:
    trainer = Trainer(toy_config(loss_weights=GAN), "cpu")
    said = [trainer.tame_discriminator() for _ in range(4)]
    every = [2**k for k in range(1, int(np.log2(RAREST_DISCRIMINATOR)) + 1)]
    assert said[:-1] == [f"it now learns every {n} steps" for n in every]
    assert "switched off" in said[-1] and trainer.discriminator_every == 0
    harsh = Trainer(toy_config(loss_weights=GAN, watchdog={"collapse": "off"}), "cpu")
    assert "switched off" in harsh.tame_discriminator() and harsh.discriminator_every == 0


def test_without_a_weight_there_is_no_discriminator() -> None:
    trainer = Trainer(toy_config(), "cpu")
    assert trainer.discriminator is None
    assert not {"discriminator", "optimizer_d"} & trainer.state().keys()
