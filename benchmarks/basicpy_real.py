"""BaSiCPy on the real suite: writes its backgrounds, which ``evaluate`` judges beside the others.

See `external_basic` for the environment that runs BaSiCPy::

    python benchmarks/external_basic.py ENVIRONMENT
    python benchmarks/basicpy_real.py --basicpy ENVIRONMENT --data DATA --out FOLDER
    txm-bgcorr evaluate --suite real --data DATA --external BaSiCPy=FOLDER

BaSiCPy needs several images: cases with one tile are left out.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
from external_basic import WAYS, ExternalBasic, Fitter, python_of

from napari_txm_bgcorr import io
from napari_txm_bgcorr.errors import TxmError
from napari_txm_bgcorr.evaluation.real_suite import MANIFEST, RealCase, load_manifest

LEAST_TILES = 2


def write_backgrounds(case: RealCase, data: Path, out: Path, method: ExternalBasic) -> str:
    """Fit one case and write ``OUT/<case>/<tile>.tif``; say what was done."""
    scan = io.read(data / case.input)
    if len(scan) < LEAST_TILES:
        return f"{len(scan)} tile: left out"
    if case.darks:
        darks, _ = io.read_references([data / d for d in case.darks], like=scan, role="darks")
        scan = replace(scan, darks=darks)
    tiles = np.stack([np.asarray(scan.tiles[i]) for i in range(len(scan))])
    backgrounds = method.fit(scan).background(tiles, np.arange(len(scan)))
    folder = out / case.slug
    folder.mkdir(parents=True, exist_ok=True)
    for name, background in zip(scan.names, backgrounds, strict=True):
        tifffile.imwrite(folder / f"{name}.tif", background.astype(np.float32))
    return f"{len(scan)} tiles in {method.said['seconds']:.1f} s"


def main() -> None:
    """Write the backgrounds of every case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--basicpy", type=Path, required=True, help="folder of its environment")
    parser.add_argument("--data", type=Path, required=True, help="folder of the real scans")
    parser.add_argument("--manifest", type=Path, default=None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--way", default="BaSiCPy", choices=list(WAYS))
    given = parser.parse_args()
    fitter = Fitter(python_of(given.basicpy))
    for case in load_manifest(given.manifest or given.data / MANIFEST):
        method = ExternalBasic(fitter, **WAYS[given.way])
        try:
            said = write_backgrounds(case, given.data, given.out, method)
        except TxmError as error:
            said = f"failed: {error}"
        print(f"{case.name}: {said}", flush=True)
    fitter.close()


if __name__ == "__main__":
    main()
