"""BaSiCPy on the 3 x 3 mosaics of ``txm-bgcorr evaluate``, with and without the joint stage.

``python benchmarks/basicpy_cases.py --basicpy FOLDER``; see `external_basic` for the folder.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from external_basic import WAYS, ExternalBasic, Fitter, python_of

from napari_txm_bgcorr.backgrounds.registry import METHODS
from napari_txm_bgcorr.evaluation.evaluate import evaluate, format_table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--basicpy", type=Path, required=True, help="folder of its environment")
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--methods", nargs="+", default=["tile-median", *WAYS])
    given = parser.parse_args()
    fitter = Fitter(python_of(given.basicpy))
    for name, options in WAYS.items():
        METHODS[name] = partial(ExternalBasic, fitter, **options)
    rows = evaluate(
        given.methods, sessions=given.sessions, size=given.size, seed=given.seed,
        cases=["mosaic 3x3"], joint=True,
    )  # fmt: skip
    fitter.close()
    print(format_table(rows))


if __name__ == "__main__":
    main()
