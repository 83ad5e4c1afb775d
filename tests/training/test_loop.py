import itertools
import json
import math

import numpy as np
import pytest
import torch

from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.models.checkpoint import load_model
from napari_txm_bgcorr.training.config import load_config, preset_names
from napari_txm_bgcorr.training.data.pairs import batches, build_pairs, to_batch
from napari_txm_bgcorr.training.loop import Trainer, TrainError, fit, run_training
from napari_txm_bgcorr.training.losses import LOSSES
from napari_txm_bgcorr.training.run.folder import RunFolder, read_checkpoint
from tests.training.toy import ToyPairs, toy_config

GAN = {"l1": 1.0, "fft_l1": 0.1, "adversarial": 0.01}


def weights(run):
    return load_model(run / "model.safetensors").network.state_dict()


def newest(run):
    return read_checkpoint(sorted((run / "checkpoints").glob("*.ckpt"))[-1])


def assert_same(a, b, path=""):
    """Equal bit for bit, through nested states."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            if key != "elapsed_s":
                assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, (list, tuple)):
        for k, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{path}/{k}")
    else:
        assert a == b, path


def test_training_lowers_the_error_and_improves_on_the_prior():
    steps = list(fit(toy_config(steps=200, validate_every=200, batch=8, lr=3e-3), None))
    first, last = steps[0].validation, steps[-1].validation
    assert last["none"] < 0.35 * first["none"]
    assert last["stale"] < last["stale_prior"] == pytest.approx(first["stale_prior"])
    assert steps[-1].progress == 1 and len(steps) == 201
    assert set(steps[-1].preview) == {"raw", "prior", "predicted", "true"}


ALL_LOSSES = dict.fromkeys(LOSSES, 0.1) | {"adversarial": 0.01}
SMALL = {"field_px": 32, "features": (8, 8, 16)}
OPEN = {**SMALL, "probabilistic": True}


@pytest.mark.parametrize(
    ("stop_at", "changes"),
    [
        (3, {"loss_weights": GAN}),
        (8, {"loss_weights": GAN, "precision": "bf16", "micro_batch": 3}),
        (9, {"loss_weights": GAN, "precision": "auto"}),
        (5, {"loss_weights": GAN, "adversarial_mode": "hinge", "schedule": "linear"}),
        (
            13,
            {
                "network": OPEN,
                "loss_weights": ALL_LOSSES,
                "micro_batch": 3,
                "schedule": "half-linear",
            },
        ),
        (19, {"network": SMALL | {"name": "attention-unet"}, "patience": 1, "ema": 0.99}),
        (11, {"network": SMALL | {"name": "dynunet"}, "adversarial_mode": "vanilla"}),
        (7, {"network": {"field_px": 32, "name": "unet256", "ngf": 2}, "micro_batch": 2}),
    ],
)
def test_a_resumed_run_ends_bit_identical(tmp_path, stop_at, changes):
    config = toy_config(adversarial_start=0.2, **changes)
    run_training(config, tmp_path / "whole", device="cpu")

    def stop(step):
        if step.step == stop_at:
            (tmp_path / "cut" / "stop").touch()

    run_training(config, tmp_path / "cut", device="cpu", on_step=stop)
    status = json.loads((tmp_path / "cut" / "status.json").read_text())
    assert (status["state"], status["step"]) == ("stopped", stop_at)
    torch.manual_seed(123)  # the resumed process starts from another state
    run_training(config, tmp_path / "cut", resume=True, device="cpu")
    assert_same(newest(tmp_path / "whole"), newest(tmp_path / "cut"))
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    told = []
    for run in ("whole", "cut"):
        lines = (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        kept = ("step", "losses", "validation", "lr")
        told.append([{key: json.loads(line)[key] for key in kept} for line in lines])
    assert told[0] == told[1] and [line["step"] for line in told[1]] == [0, 5, 10, 15, 20]


def test_a_killed_run_loses_no_more_than_the_last_interval(tmp_path):
    config = toy_config()

    def die(step):
        if step.step == 13:
            raise ValueError("died")

    with pytest.raises(ValueError, match="died"):
        run_training(config, tmp_path / "cut", device="cpu", on_step=die)
    assert json.loads((tmp_path / "cut" / "status.json").read_text())["state"] == "failed"
    assert newest(tmp_path / "cut")["step"] == 10
    run_training(config, tmp_path / "cut", resume=True, device="cpu")
    run_training(config, tmp_path / "whole", device="cpu")
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "foreign"])
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(tmp_path, damage):
    config = toy_config(steps=10)
    run_training(config, tmp_path, device="cpu")
    last = sorted((tmp_path / "checkpoints").glob("*.ckpt"))[-1]
    data = last.read_bytes()
    middle = len(data) // 2
    last.write_bytes(
        {
            "truncate": data[:middle],
            "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "empty": b"",
            "foreign": b"\x80\x02cos\nsystem\n" + data,
        }[damage]
    )
    state, passed = RunFolder(tmp_path).newest()
    assert state["step"] == 5
    assert len(passed) == 1 and str(last) in passed[0]
    steps = []
    run_training(config, tmp_path, resume=True, device="cpu", on_step=lambda s: steps.append(s))
    assert [s.step for s in steps] == [6, 7, 8, 9, 10]


def test_checkpoints_run_no_code(tmp_path):
    """A checkpoint with a right hash but a pickled call in it is refused, not run."""
    import hashlib
    import pickle

    from napari_txm_bgcorr.errors import ModelError
    from napari_txm_bgcorr.training.run.folder import MAGIC

    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("owned").touch, ())

    body = pickle.dumps(Evil(), protocol=2)
    place = tmp_path / "step_00000001.ckpt"
    place.write_bytes(MAGIC + hashlib.sha256(body).digest() + body)
    with pytest.raises(ModelError, match="cannot be unpacked"):
        read_checkpoint(place)
    assert not (tmp_path / "owned").exists()


def test_only_the_newest_checkpoints_are_kept_and_nothing_half_written(tmp_path):
    run_training(toy_config(keep_checkpoints=2), tmp_path, device="cpu")
    names = [p.name for p in sorted((tmp_path / "checkpoints").iterdir())]
    assert names == ["step_00000015.ckpt", "step_00000020.ckpt"]
    assert not list(tmp_path.rglob("*.part"))
    preview = np.load(tmp_path / "previews" / "latest.npz")
    assert preview["predicted"].shape == (32, 32)


def test_a_run_is_not_overwritten_nor_resumed_as_something_else(tmp_path):
    run_training(toy_config(steps=2), tmp_path, device="cpu")
    with pytest.raises(ConfigError, match="holds a run already; pass --resume"):
        run_training(toy_config(steps=2), tmp_path, device="cpu")
    with pytest.raises(ConfigError, match="seed was 0 and cannot become 1"):
        run_training(toy_config(steps=2, seed=1), tmp_path, resume=True, device="cpu")
    run_training(toy_config(steps=4), tmp_path, resume=True, device="cpu")
    assert newest(tmp_path)["step"] == 4


@pytest.mark.parametrize("schedule", ["cosine", "linear", "half-linear", "constant"])
def test_rate_rises_then_falls_to_nothing(schedule):
    trainer = Trainer(toy_config(steps=100, warmup=0.1, schedule=schedule), "cpu")
    rates = []
    for trainer.step in range(101):
        rates.append(trainer.rate())
    assert rates[0] == 0.01 and rates[10] == pytest.approx(1)
    assert all(a <= b for a, b in itertools.pairwise(rates[:11]))
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[100] == pytest.approx(1 if schedule == "constant" else 0)


def test_a_time_budget_ends_the_run_and_survives_a_restart():
    trainer = Trainer(toy_config(steps=10_000, minutes=2), "cpu")
    trainer.elapsed_s = 60
    assert trainer.progress() == pytest.approx(0.5)
    other = Trainer(toy_config(steps=10_000, minutes=2), "cpu")
    other.restore(trainer.state())
    assert other.progress() == trainer.progress()
    other.elapsed_s = 119.9999
    assert sum(1 for _ in fit(other.config, other)) < 50 and other.progress() == 1


def test_bad_data_are_named_and_earlier_weights_stay(tmp_path, monkeypatch):
    real = ToyPairs.draw

    def spoiled(self, index):
        pairs = real(self, index)
        return pairs if index < 12 else pairs._replace(log_raw=pairs.log_raw * math.nan)

    monkeypatch.setattr(ToyPairs, "draw", spoiled)
    with pytest.raises(TrainError, match=r"step 15: the data set holds tiles with NaN"):
        run_training(toy_config(), tmp_path, device="cpu")
    assert all(torch.isfinite(w).all() for w in weights(tmp_path).values())
    held = newest(tmp_path)
    assert held["step"] == 10 and all(torch.isfinite(w).all() for w in held["average"].values())


def test_the_discriminator_waits_and_then_learns():
    config = toy_config(loss_weights=GAN, adversarial_start=0.5)
    trainer = Trainer(config, "cpu")
    start = {k: v.clone() for k, v in trainer.discriminator.state_dict().items()}
    source = build_pairs(config)
    for index in range(10):
        losses = trainer.train_step(to_batch(source.draw(index)))
        assert "adversarial" not in losses
    assert_same(start, dict(trainer.discriminator.state_dict()))
    losses = trainer.train_step(to_batch(source.draw(10)))
    assert {"adversarial", "discriminator", "fft_l1", "total", "grad_norm"} < set(losses)
    changed = [not torch.equal(start[k], v) for k, v in trainer.discriminator.state_dict().items()]
    assert any(changed)
    assert all(p.requires_grad for p in trainer.discriminator.parameters())


def test_average_follows_the_weights():
    trainer = Trainer(toy_config(ema=0.5), "cpu")
    for own in trainer.generator.parameters():
        own.data.fill_(1.0)
    for _ in range(40):
        trainer.step += 1
        trainer._update_average()
    for averaged in trainer.average.parameters():
        torch.testing.assert_close(averaged, torch.ones_like(averaged))


def test_batches_are_a_function_of_seed_and_number():
    config = toy_config(steps=6)
    whole = list(batches(build_pairs(config), config, 0))
    rest = list(batches(build_pairs(config), config, 4))
    assert len(whole) == 6 and len(rest) == 2
    for a, b in zip(whole[4:], rest, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(whole[0].inputs, whole[1].inputs)
    other = next(batches(build_pairs(toy_config(seed=9)), toy_config(seed=9), 0))
    assert not torch.equal(other.inputs, whole[0].inputs)


def test_fine_tuning_starts_from_a_model(tmp_path):
    run_training(toy_config(steps=5), tmp_path, device="cpu")
    trainer = Trainer(toy_config(init=str(tmp_path)), "cpu")
    assert_same(weights(tmp_path), trainer.generator.state_dict())


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid(name):
    assert load_config(name).batch >= 1


def test_settings_are_overridden_by_dotted_keys(tmp_path):
    place = tmp_path / "own.yaml"
    place.write_text("steps: 7\nloss_weights: {l1: 2}\n")
    config = load_config(
        place, ["minutes=5", "loss_weights.fft_l1=0.5", "network.name=unet256", "batch=8"]
    )
    assert (config.steps, config.minutes, config.batch) == (7, 5, 8)
    assert (config.loss_weights.l1, config.loss_weights.fft_l1) == (2, 0.5)
    assert config.network.name == "unet256"


@pytest.mark.parametrize(
    ("text", "overrides", "match"),
    [
        ("stepps: 3", [], "stepps: '3': no such setting, perhaps steps is meant"),
        ("zzz: 3", [], "zzz: '3': no such setting; correct or remove it"),
        ("steps: 3", ["data.workers=x"], "data.workers: 'x': give a whole number from 0 to 64"),
        ("steps: 3", ["data.workers=65"], "data.workers: '65': give a whole number"),
        ("data: {residencey: cache}", [], "data.residencey: 'cache': .*residency is meant"),
        ("steps: many", [], "steps: 'many': Input should be a valid integer"),
        ("steps: 3", ["minutes"], "not of the form key=value"),
        ("steps: 3", ["steps.x=1"], "steps is no group of settings"),
        ("steps: 3", ["loss_weights.l7=1"], r"loss_weights.l7: '1': no such setting; correct"),
        ("steps: 3", ["batch=7"], "batch 7 is no multiple"),
        ("[1, 2]", [], "holds no 'key: value' settings"),
        ("a: [", [], "not valid YAML"),
    ],
)
def test_bad_settings_name_the_key(tmp_path, text, overrides, match):
    place = tmp_path / "own.yaml"
    place.write_text(text)
    with pytest.raises(ConfigError, match=match) as caught:
        load_config(place, overrides)
    assert "\n" not in str(caught.value)


def test_a_missing_config_lists_the_presets():
    with pytest.raises(ConfigError, match=r"no such file or preset; presets are .*default"):
        load_config("nowhere.yaml")


def test_unknown_kinds_of_pairs_are_refused():
    with pytest.raises(ConfigError, match=r"data.kind: 'magic'"):
        build_pairs(toy_config(data={"kind": "magic"}))
