"""Flat fields by BaSiCPy, for `external_basic`; run by BaSiCPy's own environment.

Reads requests from standard input, a line of JSON each, and answers each with a line:

- request: ``stack`` (.npy, `(T, Y, X)` float32 counts), ``out`` (.npz to write), ``options`` (of
  ``basicpy.BaSiC``), ``tune`` (whether its ``autotune`` comes first);
- answer: ``seconds``, ``settings`` used, ``version``, ``said`` (its own warnings), or ``error``.

The .npz holds ``flatfield`` and ``darkfield``, `(Y, X)` float32, and ``baseline``, `(T,)`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import sys
import time
import warnings

os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported

import numpy as np
from basicpy import BaSiC

# of BaSiCPy on a stack that it cannot work with
ERRORS = (ValueError, RuntimeError, ArithmeticError, LookupError, AssertionError)


def fit(request: dict) -> dict:
    """Answer one request."""
    images = np.load(request["stack"])
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = BaSiC(**request["options"])
        if request["tune"]:
            model.autotune(images)
        model.fit(images)
    seconds = time.perf_counter() - began
    fields = {"flatfield": model.flatfield, "darkfield": model.darkfield}
    np.savez(
        request["out"],
        baseline=np.asarray(model.baseline, np.float64),
        **{name: np.asarray(field, np.float32) for name, field in fields.items()},
    )
    settings = {name: value for name, value in model.settings.items() if value is not None}
    return {
        "seconds": seconds,
        "settings": json.loads(json.dumps(settings, default=float)),
        "version": importlib.metadata.version("basicpy"),
        "said": sorted({str(one.message) for one in said}),
    }


def main() -> None:
    """Answer until there are no more requests."""
    answers = sys.stdout
    with contextlib.redirect_stdout(io.StringIO()):  # autotune prints
        for line in sys.stdin:
            try:
                answer = fit(json.loads(line))
            except ERRORS as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
