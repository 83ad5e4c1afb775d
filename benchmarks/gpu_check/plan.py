"""The stages, their time limits, and the toy sizes of a rehearsal."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["AIM_OVERHEAD", "AIM_RATE", "FAR", "REHEARSAL_S", "TOTAL_S", "Stage", "plan"]

TOTAL_S = 480.0
REHEARSAL_S = 1800.0  # on a busy machine; a minute on an idle one
AIM_RATE = 3300.0  # samples/s with the FFT loss: 10,000 pairs x 300 epochs in 0.25 h
AIM_OVERHEAD = 2.0  # % that the FFT loss may cost
FAR = 0.9  # of the aim, below which the profile is taken
EAGER = "^(naive loop|one generator|batch|CUDA graphs)"
COMPILED = "^compile"


@dataclass(frozen=True)
class Stage:
    """A process with a time limit.

    Attributes
    ----------
    name, title : str
    module : str
        Of this package; what it tells on standard output is described in `rows`.
    arguments : tuple of str
        ``{device}``, ``{out}``, ``{seconds}`` and ``{minutes}`` (the limit less the start-up)
        and ``{row}`` (the fastest row so far) are filled in.
    limit_s : float
        Or less, where less is left of the whole time. 0: all that is left.
    """

    name: str
    title: str
    module: str
    arguments: tuple[str, ...]
    limit_s: float


STAGES = (
    Stage("tests", "CUDA tests", "cuda_tests", (), 70),
    Stage(
        "speed",
        "Training speed: naive, accelerated, CUDA graphs",
        "training_speed",
        ("--device", "{device}", "--rows", EAGER, "--minutes", "{minutes}"),
        95,
    ),
    Stage(
        "compile",
        "Training speed: torch.compile, without and with CUDA graphs",
        "training_speed",
        ("--device", "{device}", "--rows", COMPILED, "--minutes", "{minutes}"),
        95,
    ),
    Stage(
        "profile",
        "Where a training step spends its time",
        "training_speed",
        ("--device", "{device}", "--profile", "--rows", "{row}"),
        30,
    ),
    Stage(
        "memory",
        "961 tiles of 1024 px from memory",
        "correction",
        ("memory", "--device", "{device}"),
        60,
    ),
    Stage(
        "files",
        "961 tiles of 1024 px from files",
        "correction",
        ("files", "--device", "{device}"),
        75,
    ),
    Stage(
        "training",
        "Default recipe on pairs drawn ahead",
        "default_training",
        ("--device", "{device}", "--out", "{out}", "--seconds", "{seconds}"),
        0,
    ),
)
TOY_NETWORK = ("network.features=[8,8]", "network.field_px=32", "discriminator_features=4")
TOY_RUN = ("steps=6", "batch=4", "log_every=2", "validate_every=6", "data.validation_sessions=1")
TOY_SPEED = ("--batch", "2", "--ngf", "1", "--pairs", "1")
TOY: dict[str, tuple[str, ...]] = {
    # without the rows whose flags a CPU tries out in all combinations
    "speed": (*TOY_SPEED, "--rows", "^(naive loop|batch|CUDA graphs)"),
    "compile": TOY_SPEED,
    "profile": TOY_SPEED,
    "memory": ("--side", "3", "--size", "64"),
    "files": ("--side", "3", "--size", "64"),
    "training": (
        "--pairs", "8", *(word for text in (*TOY_NETWORK, *TOY_RUN) for word in ("--set", text)),
    ),
}  # fmt: skip
TOY_TITLE = " (toy size)"


def plan(rehearse: bool) -> tuple[Stage, ...]:
    """Stages in their order; those of a rehearsal do little, and may take longer."""
    if not rehearse:
        return STAGES
    return tuple(
        replace(
            stage,
            title=stage.title + TOY_TITLE,
            arguments=(*stage.arguments, *TOY.get(stage.name, ())),
            limit_s=REHEARSAL_S,
        )
        for stage in STAGES
    )
