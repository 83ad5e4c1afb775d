"""Settings of a network, its data and its training: one way in, unknown keys refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.models import NetworkConfig

from .energy import EnergyConfig
from .watchdog import WatchdogConfig

__all__ = [
    "AugmentConfig",
    "DataConfig",
    "EnergyConfig",
    "LossWeights",
    "NetworkConfig",
    "TrainConfig",
    "WatchdogConfig",
    "load_config",
    "preset_names",
]


MOST_WORKERS = 64


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AugmentConfig(_Strict):
    """Augmentation of references and specimens; 0 or false switches a part off.

    The physics of each part is in `augment` and in docs/explanation/training-pairs.md.

    Attributes
    ----------
    gain : float
        Level (and with it the share of noise) varies by up to ``exp(+-gain)``.
    drift_h : float
        References drift as the simulator's illumination does in up to this many hours.
    noise : float
        Factor on photon noise, added after multiplying.
    defocus_px : float
        Greatest blur (Gaussian sigma, pixels of the field) of a third of the specimens.
    turn, flip : bool
        Rotate specimens by any angle; mirror them. References are never turned.
    crop : float
        Least share of a specimen's width that fills the field.
    thickness : (float, float)
        Range of ``a`` in ``transmission ** a``.
    """

    gain: float = Field(default=0.4, ge=0, le=3)
    drift_h: float = Field(default=8.0, ge=0)
    noise: float = Field(default=1.0, ge=0)
    defocus_px: float = Field(default=1.5, ge=0)
    turn: bool = True
    flip: bool = True
    crop: float = Field(default=0.6, gt=0, le=1)
    thickness: tuple[float, float] = (0.5, 1.6)


class DataConfig(_Strict):
    """Sources of the training pairs, and how they are drawn.

    Attributes
    ----------
    kind : str
        Row of `pairs.PAIRS`; used where `mix` is empty.
    mix : dict of str to float
        Weight of each kind of pairs in every batch. Kinds without data are left out.
    references, samples, darks : tuple of str
        Files, folders and libraries of images without sample, of corrected images
        (transmission) and of images without beam.
    pairs : tuple of (raw, background)
        Files or folders whose images belong together by name or order.
    residency : str
        Where images live: ``device`` (as uint16), or in MONAI's ``cache``, ``smart-cache`` or
        ``persistent`` dataset; ``auto`` decides by their size.
    cache_folder : str or None
        Of the persistent dataset, which tells images by name and time; None: a temporary one.
    smart_cache : int
        Images in the smart cache; 0: as many as fit into memory. A resumed run that wants
        the same batches needs the same number.
    augment : AugmentConfig
    families : tuple of str
        Illumination families to draw from; empty: all that may be trained on.
    sessions_per_batch : int
        Sessions in one batch; each gives ``batch / sessions_per_batch`` tiles.
    workers : int or "auto"
        Processes that draw batches; 0: in the training process; ``auto``: by cores and memory
        (`pairs.worker_count`). The batches do not depend on it.
    simulate_px : int
        Edge of a simulated tile in pixels; a multiple of the field.
    p_no_prior, p_stale, p_tile_median, p_smooth : float
        Share of tiles with no prior, with an old reference, with the median of the
        session's other tiles, with the smooth part only. Scaled to sum to 1.
    p_pedestal : float
        Share of sessions whose dark is unknown and stays in input and target.
    max_age_h : float
        Oldest reference in hours (ages are log-uniform).
    min_age_h : float
        Youngest reference in hours, and least time between a composed tile and its reference.
    p_told_by_age : float
        Share of the stale priors of composed tiles whose error is told as
        `illumination_drift.expected_drift` has it for their age, as it is when correcting; else
        it is told from the truth.
    share_pattern : bool
        Average the fine pattern of composed tiles over the references of a session, see
        `shared_pattern`; for sessions of few references.
    drift : (float, float)
        Least and greatest drift scale (1 = normal), log-uniform.
    staleness_sigma : float
        Log-normal spread of the staleness told to the network round the true one.
    p_flip : float
        Share of tiles that are flipped. Low: the shape is fixed to the camera.
    pool_sessions, pool_specimens : int
        How many simulated sessions and specimens each worker keeps at hand and uses about
        four times (specimens turned and thickened); 0: every one is used once.
    validation_sessions : int
        Fixed sessions of the validation set, four tiles each.
    validation_seed : int
        Seed of the validation set; never used for training.
    """

    kind: str = "simulated"
    mix: dict[str, Annotated[float, Field(ge=0)]] = {}
    references: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    darks: tuple[str, ...] = ()
    residency: Literal["auto", "device", "cache", "smart-cache", "persistent"] = "auto"
    cache_folder: str | None = None
    smart_cache: int = Field(default=0, ge=0)
    augment: AugmentConfig = AugmentConfig()
    families: tuple[str, ...] = ()
    sessions_per_batch: int = Field(default=4, ge=1)
    workers: int | Literal["auto"] = "auto"
    simulate_px: int = Field(default=256, ge=16, le=4096)
    p_no_prior: float = Field(default=0.45, ge=0)
    p_stale: float = Field(default=0.30, ge=0)
    p_tile_median: float = Field(default=0.15, ge=0)
    p_smooth: float = Field(default=0.10, ge=0)
    p_pedestal: float = Field(default=0.6, ge=0, le=1)
    max_age_h: float = Field(default=48.0, gt=0.02)
    min_age_h: float = Field(default=1 / 60, gt=0)
    p_told_by_age: float = Field(default=0.0, ge=0, le=1)
    share_pattern: bool = False
    drift: tuple[float, float] = (0.06, 2.5)
    staleness_sigma: float = Field(default=0.4, ge=0)
    p_flip: float = Field(default=0.25, ge=0, le=1)
    pool_sessions: int = Field(default=0, ge=0)
    pool_specimens: int = Field(default=0, ge=0)
    validation_sessions: int = Field(default=12, ge=1)
    validation_seed: int = 990_001

    @field_validator("workers", mode="before")
    @classmethod
    def _count_or_auto(cls, value: Any) -> Any:
        if value != "auto" and not (str(value).isdecimal() and int(value) <= MOST_WORKERS):
            raise ValueError(f"give a whole number from 0 to {MOST_WORKERS}, or auto")
        return value


class LossWeights(_Strict):
    """Weight of each loss; 0 leaves it out. Independent of image size.

    The names are the rows of `losses.LOSSES`, and ``adversarial``. ``likelihood`` and ``free``
    train the outputs that only a probabilistic network has.
    """

    l1: float = Field(default=1.0, ge=0)
    level: float = Field(default=0.2, ge=0)
    fft_l1: float = Field(default=0.0, ge=0)
    fft_amplitude: float = Field(default=0.0, ge=0)
    focal_frequency: float = Field(default=0.0, ge=0)
    frc: float = Field(default=0.0, ge=0)
    likelihood: float = Field(default=0.0, ge=0)
    free: float = Field(default=0.0, ge=0)
    adversarial: float = Field(default=0.0, ge=0)


class TrainConfig(_Strict):
    """A whole training run.

    Attributes
    ----------
    network, data, loss_weights
        See their classes.
    steps : int
        Steps at most.
    minutes : float or None
        Time budget of the training in minutes; the schedule then follows the clock. The run
        ends at whichever of ``steps`` and ``minutes`` comes first.
    batch : int
        Tiles in one step.
    lr, warmup, schedule
        Greatest learning rate; share of the run in which it rises; how it falls to 0
        ("half-linear": constant for the first half, as in pix2pix; "constant": not at all).
    betas, weight_decay, clip : Adam's moments, decoupled decay, greatest gradient norm.
    ema : float
        Decay of the averaged weights, which are validated and exported.
    blend : tuple of float
        Shares of the way from the weights of `init` to the averaged ones that each validation
        tries: the best is validated and exported. Empty, or without `init`: the averaged ones.
    judge : validation cases whose mean error tells the best weights; empty: all of them.
    likelihood_start : share of the run before the likelihood trains the stated uncertainty.
    adversarial_mode, adversarial_start : kind of GAN loss; share of the run before it begins.
    discriminator_features, discriminator_layers, discriminator_lr : the PatchGAN.
    precision : "auto" is bf16 where the device multiplies in it (CUDA from Ampere, 2020, on;
        CPUs with AVX-512 bf16) and fp32 elsewhere.
    checkpoint_every : steps from checkpoint to checkpoint.
    validate_every, log_every : steps from validation to validation, from log line to line.
    keep_checkpoints : newest checkpoints kept on disk.
    seed : seed of weights and batches.
    init : model (name or file) whose weights to start from, or None.
    remember : references that the model carries and starts from where a scan brings none; 0: none.
    patience : validations in a row without a better error after which the run ends; 0: never.
    micro_batch : tiles on a device at once, whose gradients add up to the batch's; 0: all.
        Halved by itself where memory runs out.
    loggers : other places that take the curves, rows of `loggers.LOGGERS`.
    watchdog, energy : see their classes.
    """

    network: NetworkConfig = NetworkConfig()
    data: DataConfig = DataConfig()
    loss_weights: LossWeights = LossWeights()
    steps: int = Field(default=6000, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    batch: int = Field(default=16, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.02, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "half-linear", "constant"] = "cosine"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    blend: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    judge: tuple[str, ...] = ()
    likelihood_start: float = Field(default=0.5, ge=0, le=1)
    adversarial_mode: Literal["least_squares", "hinge", "vanilla"] = "least_squares"
    adversarial_start: float = Field(default=0.5, ge=0, le=1)
    discriminator_features: int = Field(default=32, ge=1)
    discriminator_layers: int = Field(default=3, ge=1, le=6)
    discriminator_lr: float = Field(default=2e-4, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    checkpoint_every: int = Field(default=200, ge=1)
    validate_every: int = Field(default=200, ge=1)
    log_every: int = Field(default=20, ge=1)
    keep_checkpoints: int = Field(default=3, ge=2)
    seed: int = Field(default=0, ge=0)
    init: str | None = None
    remember: int = Field(default=0, ge=0, le=16)
    patience: int = Field(default=0, ge=0)
    micro_batch: int = Field(default=0, ge=0)
    loggers: tuple[Literal["tensorboard", "mlflow"], ...] = ()
    watchdog: WatchdogConfig = WatchdogConfig()
    energy: EnergyConfig = EnergyConfig()

    @model_validator(mode="after")
    def _batch_divides(self) -> TrainConfig:
        if self.batch % self.data.sessions_per_batch:
            raise ValueError(
                f"batch {self.batch} is no multiple of data.sessions_per_batch "
                f"{self.data.sessions_per_batch}"
            )
        return self


def preset_names() -> list[str]:
    """Names of the presets that ship with the package."""
    folder = resources.files("napari_txm_bgcorr.training") / "presets"
    return sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".yaml"))


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a training configuration.

    Parameters
    ----------
    source : str or Path
        YAML file, or the name of a preset.
    overrides : sequence of str
        ``key=value`` with dotted keys (``loss_weights.l1=2``); values are read as YAML.

    Raises
    ------
    ConfigError
        If the file is missing or no YAML mapping, or a key or value is not usable.
    """
    values = _read_yaml(source)
    for item in overrides:
        _override(values, item)
    return parse_config(values, str(source))


def parse_config(values: Mapping[str, Any], where: str) -> TrainConfig:
    """Check plain values against `TrainConfig`; the first problem becomes a `ConfigError`."""
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "batch"
        given = first["input"]  # of a check across settings: all of them
        value = "" if isinstance(given, Mapping) else f"{str(given)[:60]!r}: "
        raise ConfigError(
            f"{where}: {key}: {value}{_in_words(first)}; correct or remove it"
        ) from error


def _in_words(found: Mapping[str, Any]) -> str:
    """Describe the fault of a setting, and suggest the name that was perhaps meant."""
    if found["type"] != "extra_forbidden":
        return str(found["msg"]).removeprefix("Value error, ")
    *groups, name = (str(part) for part in found["loc"])
    model: Any = TrainConfig
    for group in groups:
        model = model.model_fields[group].annotation
    near = get_close_matches(name, model.model_fields, n=1)
    return f"no such setting, perhaps {near[0]} is meant" if near else "no such setting"


def _read_yaml(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    if str(source) in preset_names():
        preset = resources.files("napari_txm_bgcorr.training") / "presets" / f"{source}.yaml"
        text = preset.read_text(encoding="utf-8")
    elif path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{source}: cannot be read as text ({error})") from error
    else:
        known = ", ".join(preset_names())
        raise ConfigError(f"{source}: no such file or preset; presets are {known}")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = str(error).splitlines()[0]
        raise ConfigError(f"{source}: not valid YAML ({line}); correct the file") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: holds no 'key: value' settings; see the preset 'default'")
    return values


def _override(values: dict[str, Any], item: str) -> None:
    key, found, text = item.partition("=")
    if not found or not key.strip():
        raise ConfigError(f"--set {item}: not of the form key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {item}: the value is not valid YAML") from error
    *parents, last = key.strip().split(".")
    place = values
    for name in parents:
        inner = place.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {item}: {name} is no group of settings")
        place = inner
    place[last] = value
