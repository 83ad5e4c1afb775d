"""All background methods by name. Importing this loads no torch; making the generator does."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from napari_txm_bgcorr.core import BackgroundMethod
from napari_txm_bgcorr.errors import MethodError

from .drift.model import DriftModel
from .smooth import CLASSICAL

__all__ = ["JOINT_BY_DEFAULT", "LEARNED", "METHODS", "make_method", "method_names"]

LEARNED = frozenset({"auto", "generator"})  # these take a model and a device
JOINT_BY_DEFAULT = frozenset({"auto"})  # refined over the whole scan unless told not to


def _generator(**parameters: Any) -> BackgroundMethod:
    from .generator import Generator

    return Generator(**parameters)


def _auto(model: str = "default", device: str = "auto") -> BackgroundMethod:
    """References or generator, for `make_method` to put the drift model on top."""
    from .auto_source import AutoSource

    return AutoSource(model=model, device=device)


METHODS: dict[str, Callable[..., BackgroundMethod]] = {
    "auto": _auto,
    "generator": _generator,
    **CLASSICAL,
}


def method_names() -> list[str]:
    """Names for ``--method`` and the panel, ``auto`` first."""
    return list(METHODS)


def make_method(
    name: str, *, joint: bool | None = None, i0: float | None = None, **parameters: Any
) -> BackgroundMethod:
    """Make a background method that is not fitted yet.

    Parameters
    ----------
    name : str
        Row of `METHODS`.
    joint : bool or None
        Solve for the backgrounds of the whole scan together (`backgrounds.DriftModel`), starting
        from the method's. None: for ``auto`` only.
    i0 : float or None
        Counts of the open beam, dark removed, as the median over the lit field: sets the level
        of what is refined together.
    **parameters
        Of that method; a value of None means its default.

    Raises
    ------
    MethodError
        If there is no such method, it has no such parameter, or `i0` is given without the
        joint stage.
    ModelError, DeviceError
        If the generator's model or device is unusable.
    """
    if name not in METHODS:
        raise MethodError(f"method {name!r}: unknown; choose one of {', '.join(METHODS)}")
    given = {key: value for key, value in parameters.items() if value is not None}
    together = name in JOINT_BY_DEFAULT if joint is None else joint
    if i0 is not None and not together:
        raise MethodError(f"i0 {i0:g}: only the joint stage uses it; choose --joint or leave it")
    try:
        method = METHODS[name](**given)
    except TypeError as error:
        known = ", ".join(_parameters(name)) or "none"
        raise MethodError(f"method {name}: {error}; its parameters are {known}") from error
    if not together:
        return method
    return DriftModel(method, i0=i0, name=name if name in JOINT_BY_DEFAULT else None)


def _parameters(name: str) -> list[str]:
    if name == "generator":
        return ["model", "device", "batch", "precision"]
    return list(inspect.signature(METHODS[name]).parameters)
