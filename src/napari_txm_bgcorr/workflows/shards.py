"""`txm-bgcorr correct --shard`: one share of the work for each job of an array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_txm_bgcorr.errors import ConfigError

__all__ = ["JOIN", "join", "parse_shard"]

JOIN = "join"


def parse_shard(text: str) -> tuple[int, int] | None:
    """Read ``I/N``, where ``1 <= I <= N``; None for ``join``.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    if text == JOIN:
        return None
    first, _, last = text.partition("/")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise ConfigError(
            f"--shard {text}: give I/N with I from 1 to N, for example 3/16, or join"
        )
    return int(first), int(last)


def join(out: Path) -> dict[str, Any]:
    """Complete an output whose shards are done, and say so like `correct`."""
    from napari_txm_bgcorr.io.output.shared_store import join_shards

    return {"results": [], "joined": str(join_shards(out))}
