"""Areas of an image: polygons, and half planes written as a linear inequality.

An inequality is parsed by a grammar of its own; nothing in a manifest is ever executed.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.errors import ConfigError

__all__ = ["Area", "area_mask", "check_area"]

Area = str | tuple[tuple[float, float], ...]
"""Vertices ``(x, y)`` in pixels, or text such as ``x < 400 - 0.664*y``."""

Mask = NDArray[np.bool_]
MAX_TEXT = 200  # characters; bounds the depth of what is parsed
LEAST_VERTICES = 3
LESS, GREATER = (ast.Lt, ast.LtE), (ast.Gt, ast.GtE)


def check_area(area: Area) -> None:
    """Refuse what `area_mask` cannot draw.

    Raises
    ------
    ConfigError
        If the text is no linear inequality, or the polygon has fewer than three vertices.
    """
    if isinstance(area, str):
        _half_plane(area)
    elif len(area) < LEAST_VERTICES:
        raise ConfigError(f"area {list(area)}: {len(area)} vertices; give 3 or more as [x, y]")


def area_mask(area: Area, shape: tuple[int, ...]) -> Mask:
    """Pixels whose centres lie in an area.

    Parameters
    ----------
    area : Area
    shape : (Y, X)
        Of the image, pixels.

    Returns
    -------
    (Y, X) bool

    Raises
    ------
    ConfigError
        As `check_area`.
    """
    check_area(area)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    if isinstance(area, str):
        (by_x, by_y, constant), closed = _half_plane(area)
        value = by_x * x + by_y * y + constant
        below: Mask = value <= 0 if closed else value < 0
        return below
    return _inside(area, y, x)


def _inside(
    polygon: Sequence[tuple[float, float]], y: NDArray[np.float64], x: NDArray[np.float64]
) -> Mask:
    """Even-odd rule: an odd number of edges lies to the right of the pixel."""
    inside = np.zeros(x.shape, bool)
    for (x1, y1), (x2, y2) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        if y1 != y2:
            crossed = (y1 > y) != (y2 > y)
            inside ^= crossed & (x < x1 + (x2 - x1) * (y - y1) / (y2 - y1))
    return inside


def _half_plane(text: str) -> tuple[NDArray[np.float64], bool]:
    """Coefficients of ``a*x + b*y + c < 0``, and whether the line itself belongs to it."""
    try:
        if len(text) > MAX_TEXT:
            raise ValueError("too long")
        body = ast.parse(text.strip(), mode="eval").body
        if not isinstance(body, ast.Compare) or len(body.ops) != 1:
            raise ValueError("not one comparison")
        difference = _linear(body.left) - _linear(body.comparators[0])
        if isinstance(body.ops[0], GREATER):
            difference = -difference
        elif not isinstance(body.ops[0], LESS):
            raise ValueError("not < or >")
        if not np.isfinite(difference).all():
            raise ValueError("numbers too large")
    except (SyntaxError, ValueError) as error:
        raise ConfigError(
            f"area {text!r}: no linear inequality ({error}); give one such as "
            "x < 400 - 0.664*y, or a polygon [[x, y], ...]"
        ) from error
    return difference, isinstance(body.ops[0], (ast.LtE, ast.GtE))


def _linear(node: ast.expr) -> NDArray[np.float64]:
    """Coefficients ``(of x, of y, constant)`` of an expression that is linear in x and y."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return np.array([0, 0, value], np.float64)
        case ast.Name(id="x"):
            return np.array([1.0, 0, 0])
        case ast.Name(id="y"):
            return np.array([0, 1.0, 0])
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_linear(operand)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _linear(left) + _linear(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _linear(left) - _linear(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _product(_linear(left), _linear(right))
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _linear(left) / _divisor(_linear(right))
    raise ValueError(f"{ast.unparse(node)} is not linear in x and y")


def _product(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return one * _constant(other) if not other[:2].any() else other * _constant(one)


def _divisor(terms: NDArray[np.float64]) -> float:
    if _constant(terms) == 0:
        raise ValueError("division by 0")
    return _constant(terms)


def _constant(terms: NDArray[np.float64]) -> float:
    if terms[:2].any():
        raise ValueError("x and y may only be multiplied or divided by numbers")
    return float(terms[2])
