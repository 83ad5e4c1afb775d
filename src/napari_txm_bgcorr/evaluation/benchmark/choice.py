"""Selection of the accelerations that pay on the processor at hand, by timing.

bfloat16 is faster where the processor multiplies in it and far slower elsewhere; the memory
format and the products of matrices depend on the libraries too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from typing import Any

from torch import nn

from .training_data import Sources
from .training_step import Rig, Setting

__all__ = ["OPTIONAL", "decide", "settle"]

OPTIONAL = ("channels_last", "bf16", "products")  # flags of `Setting`
ROUNDS = 6  # of which the fastest counts: the machine may be busy with other work


def settle(
    settings: Sequence[Setting],
    networks: tuple[nn.Module, nn.Module],
    sources: Sources,
    device: str,
    say: Callable[[str], None],
) -> list[Setting]:
    """Rows without what slows them; on a GPU they stay as they are."""
    if device != "cpu":
        return list(settings)

    def seconds(setting: Setting) -> float:
        rig = Rig(setting, networks, sources[setting.source], device)
        rig.step(False)
        began = time.perf_counter()
        rig.step(False)
        taken = time.perf_counter() - began
        rig.release()
        return taken

    rows = decide(settings, seconds)
    for row in rows:
        if "kept" in row.note:
            say(f"{row.name}: {row.note}")
    return rows


def decide(
    settings: Sequence[Setting], seconds: Callable[[Setting], float], rounds: int = ROUNDS
) -> list[Setting]:
    """Take `OPTIONAL` flags that do not pay out of the rows below the one that brings each.

    All combinations are timed in turn on the fullest row of batch 1, round after round, since
    one flag may pay only with another; of the fastest one come the flags that are kept.

    Parameters
    ----------
    settings : sequence of Setting
        As `settings_for` lists them, every flag taken along.
    seconds : callable
        Time of one step under a setting.
    rounds : int
        The fastest round of each combination counts.

    Returns
    -------
    list of Setting
        The row that brings a flag has it in any case, and says what was found.
    """
    usable = [s for s in settings if s.batch == 1 and not s.needs_cuda]
    if not usable:
        return list(settings)
    full = max(usable, key=lambda s: sum(value is True for value in asdict(s).values()))
    flags = [flag for flag in OPTIONAL if getattr(full, flag)]
    if not flags:
        return list(settings)
    trials = [frozenset(some) for n in range(len(flags) + 1) for some in combinations(flags, n)]
    best = dict.fromkeys(trials, float("inf"))
    for _ in range(rounds):
        for trial in trials:
            best[trial] = min(best[trial], seconds(_switched(full, flags, trial)))
    gains = {
        flag: min(t for trial, t in best.items() if flag not in trial)
        / min(t for trial, t in best.items() if flag in trial)
        for flag in flags
    }
    kept = min(trials, key=lambda trial: best[trial])
    return _with_only(settings, flags, kept, gains)


def _switched(setting: Setting, flags: Iterable[str], on: Collection[str]) -> Setting:
    values: dict[str, Any] = {flag: flag in on for flag in flags}
    return replace(setting, **values)


def _with_only(
    settings: Sequence[Setting],
    flags: Sequence[str],
    kept: Collection[str],
    gains: Mapping[str, float],
) -> list[Setting]:
    rows: list[Setting] = []
    met: set[str] = set()
    for setting in settings:
        held = [flag for flag in flags if getattr(setting, flag)]
        new = [flag for flag in held if flag not in met]
        row = _switched(setting, held, {*new, *kept})
        for flag in new:
            said = "kept: rows below are" if flag in kept else "not kept: rows below would be"
            row = replace(row, note=f"{said} {gains[flag]:.2f} x as fast with it")
        met.update(new)
        rows.append(row)
    return rows
