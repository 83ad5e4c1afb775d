"""Put a run's best model where the package ships it: half precision, with figures and features.

    python tools/ship_model.py RUN --notes "How it was trained." [--figures rows.json] [--out FILE]

FILE defaults to the shipped ``default.safetensors``; its card goes beside it. ``--figures`` takes
what ``benchmarks/judge_checkpoint.py --json`` wrote: the last row goes on the card.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from napari_txm_bgcorr.models.checkpoint import (
    load_model,
    resolve_model,
    save_model,
    shipped_folder,
)
from napari_txm_bgcorr.models.novelty import add_features

MOST_BYTES = 16 * 2**20


def main(given: Sequence[str] | None = None) -> None:
    """Write weights and card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--notes", required=True)
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--out", type=Path, default=shipped_folder() / "default.safetensors")
    parser.add_argument("--tiles", type=int, default=400, help="simulated, for the features")
    options = parser.parse_args(given)
    model = load_model(resolve_model(options.run))
    metrics = dict(model.card["metrics"])
    if options.figures is not None:
        rows = json.loads(options.figures.read_text(encoding="utf-8"))
        metrics["judged"] = list(rows.values())[-1]
    save_model(
        options.out, model.network, model.config,
        training=model.card["training"], metrics=metrics, notes=options.notes, dtype="float16",
    )  # fmt: skip
    add_features(options.out, tiles=options.tiles)
    size = options.out.stat().st_size
    print(f"{options.out}: {size / 2**20:.1f} MiB")
    if size > MOST_BYTES:
        raise SystemExit(f"{options.out}: larger than {MOST_BYTES / 2**20:g} MiB; do not ship it")


if __name__ == "__main__":
    main()
