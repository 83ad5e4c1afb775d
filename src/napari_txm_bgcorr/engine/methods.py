"""All background methods by name. Importing this loads no torch; making the generator does."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from napari_txm_bgcorr.core.classical import CLASSICAL
from napari_txm_bgcorr.core.correction import BackgroundMethod
from napari_txm_bgcorr.core.errors import MethodError

__all__ = ["LEARNED", "METHODS", "make_method", "method_names"]

LEARNED = frozenset({"auto", "generator"})  # these take a model and a device


def _generator(**parameters: Any) -> BackgroundMethod:
    from napari_txm_bgcorr.engine.predict import Generator

    return Generator(**parameters)


def _auto(model: str = "default", device: str = "auto") -> BackgroundMethod:
    """The generator with the best prior that the scan offers."""
    from napari_txm_bgcorr.engine.predict import Generator

    method = Generator(model=model, device=device, prior="auto")
    method.name = "auto"
    return method


METHODS: dict[str, Callable[..., BackgroundMethod]] = {
    "auto": _auto,
    "generator": _generator,
    **CLASSICAL,
}


def method_names() -> list[str]:
    """Names for ``--method`` and the panel, ``auto`` first."""
    return list(METHODS)


def make_method(name: str, **parameters: Any) -> BackgroundMethod:
    """Make a background method that is not fitted yet.

    Parameters
    ----------
    name : str
        Row of `METHODS`.
    **parameters
        Of that method; a value of None means its default.

    Raises
    ------
    MethodError
        If there is no such method, or it has no such parameter.
    ModelError, DeviceError
        If the generator's model or device is unusable.
    """
    if name not in METHODS:
        raise MethodError(f"method {name!r}: unknown; choose one of {', '.join(METHODS)}")
    given = {key: value for key, value in parameters.items() if value is not None}
    try:
        return METHODS[name](**given)
    except TypeError as error:
        known = ", ".join(_parameters(name)) or "none"
        raise MethodError(f"method {name}: {error}; its parameters are {known}") from error


def _parameters(name: str) -> list[str]:
    if name == "generator":
        return ["model", "device", "prior", "batch", "precision"]
    return list(inspect.signature(METHODS[name]).parameters)
