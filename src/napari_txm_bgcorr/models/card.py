"""Card of a model beyond its network: use, instrument, range, data, limits, licence.

A card is distributed with its model, so it holds no path of the machine that made it:
`without_places` keeps the last part of every path.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from napari_txm_bgcorr.core import ImageStack
from napari_txm_bgcorr.simulation import FAMILIES

__all__ = [
    "INTENDED_USE",
    "LICENCE",
    "acquisition_of",
    "carries",
    "facts_of_images",
    "fits",
    "joined_fits",
    "left_out",
    "training_facts",
    "without_places",
]

LICENCE = "BSD-3-Clause"
INTENDED_USE = (
    "Predict the background (beam without sample) of raw full-field transmission X-ray "
    "microscope images, to divide it out. Not for other microscopes, nor for images that are "
    "already divided."
)
LIMITS = (
    "A background under a sample that covers the whole tile is known up to one scale only.",
    "Sample as smooth as the illumination may be taken for background where no prior is given.",
)
SIMULATED_FIELD_UM = (15.0, 15.0)  # all lengths of the simulator scale with this field
SAMPLED_IMAGES = 64
# /two/parts or more, C:\\..., \\\\server\\...
_PLACE = re.compile(r"(?<![\w.):/])(?:[A-Za-z]:[\\/]|\\\\|~?/(?=[\w.~-]+/))[^\s'\",;]*")
Facts = dict[str, Any]


def without_places(value: Any) -> Any:
    """Copy of a JSON-ready value in which every path is cut to its last part.

    Parameters
    ----------
    value : str, number, bool, None, or lists and dicts of them
        A string without spaces that holds a separator counts as a path as a whole; in a
        sentence only absolute paths do.
    """
    if isinstance(value, Mapping):
        return {str(key): without_places(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_places(item) for item in value]
    if not isinstance(value, str):
        return value
    if re.search(r"[\\/]", value) and not re.search(r"\s|://", value):
        return _last_part(value)
    return _PLACE.sub(lambda found: _last_part(found[0]), value)


def _last_part(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/."))[-1] or "folder"


def training_facts(training: Mapping[str, Any]) -> Facts:
    """Instrument, range, data and limits as far as the training's settings tell them.

    Parameters
    ----------
    training : mapping
        A `TrainConfig` as plain values.

    Returns
    -------
    dict
        ``instrument``, ``fits`` (see `fits`), ``data``, ``limits``.
    """
    data = training.get("data") or {}
    mix = [kind for kind, weight in (data.get("mix") or {}).items() if weight]
    kinds = mix or [str(data.get("kind", "unknown"))]
    facts: Facts = {
        "instrument": "not stated",
        "fits": {},
        "data": {"kinds": kinds, "sha256": {}},
        "limits": list(LIMITS),
    }
    if "simulated" not in kinds:
        return facts
    families = list(data.get("families") or [n for n, f in FAMILIES.items() if not f.held_out])
    levels = [FAMILIES[name].level for name in families if name in FAMILIES]
    facts["data"]["families"] = families
    facts["instrument"] = "simulated full-field transmission X-ray microscopes"
    facts["fits"] = {
        "level_counts": [min(low for low, _ in levels), max(high for _, high in levels)]
        if levels
        else None,
        "field_um": list(SIMULATED_FIELD_UM),
        "dark": _dark(float(data.get("p_pedestal", 0.5))),
    }
    if kinds == ["simulated"]:
        facts["limits"].append(
            "Trained on simulated sessions only; illumination unlike the simulated families "
            "is predicted markedly worse."
        )
    return facts


def _dark(share_kept: float) -> str:
    return "removed" if share_kept <= 0 else "kept" if share_kept >= 1 else "either"


def acquisition_of(stacks: Iterable[ImageStack]) -> Facts:
    """Ranges of the acquisition facts in the files of images, for `facts_of_images`."""
    found: dict[str, set[float]] = {}
    for stack in stacks:
        for known in stack.acquisition:
            facts = {**known}
            if "pixel_nm" in facts:
                facts["field_um"] = facts["pixel_nm"] * stack.images.shape[-1] / 1000
            for name, value in facts.items():
                if np.isfinite(value) and value > 0:
                    found.setdefault(name, set()).add(round(float(value), 4))
    out: Facts = {name: [min(values), max(values)] for name, values in found.items()}
    if "binning" in found:
        out["binning"] = sorted(int(value) for value in found["binning"])
    return out


def facts_of_images(stacks: Iterable[ImageStack], acquisition: Mapping[str, Any]) -> Facts:
    """Range and hashes of real references, for the card of a model trained on them.

    Parameters
    ----------
    stacks : iterable of ImageStack
        Reference images in counts; at most `SAMPLED_IMAGES` of each are read.
    acquisition : mapping
        What the files say, where they do: ``instrument``, ``binning`` (list), ``pixel_nm``
        and ``field_um`` (least, greatest), ``energy_ev`` (least, greatest).

    Returns
    -------
    dict
        ``instrument``, ``fits`` and ``data`` for `checkpoint.save_model`.
    """
    levels: list[float] = []
    hashes: dict[str, str] = {}
    dark = []
    for stack in stacks:
        dark.append(stack.dark is not None)
        count = len(stack.names)
        for i in np.unique(np.linspace(0, count - 1, min(count, SAMPLED_IMAGES)).astype(int)):
            image = np.asarray(stack.images[int(i)])
            levels.append(float(np.median(image[::4, ::4])))
            hashes[_last_part(stack.names[i])] = hashlib.sha256(image.tobytes()).hexdigest()
    known = {
        key: acquisition[key]
        for key in ("binning", "pixel_nm", "field_um", "energy_ev")
        if acquisition.get(key) is not None
    }
    if levels:
        known["level_counts"] = [round(min(levels), 1), round(max(levels), 1)]
    if dark:
        known["dark"] = "removed" if all(dark) else "either" if any(dark) else "kept"
    return {
        "instrument": acquisition.get("instrument", "not stated"),
        "fits": known,
        "data": {"images": len(levels), "sha256": hashes},
    }


def carries(card: Mapping[str, Any]) -> str:
    """Describe the references inside a model from its card; empty: none."""
    found = card.get("references")
    if not isinstance(found, Mapping):
        return ""
    size = " x ".join(str(n) for n in found.get("size") or ())
    count = found.get("count", "?")
    if not found.get("newest"):
        return f"{count} undated references, {size} px"
    return f"{count} references of {found.get('first')} to {found.get('newest')}, {size} px"


def left_out(card: Mapping[str, Any]) -> str:
    """Describe the parts of a model that its exported graph lacks; empty: none."""
    inside, network = carries(card), card.get("network")
    found = [f"The model carries {inside}. They are not in this graph."] if inside else []
    if isinstance(network, Mapping) and network.get("probabilistic"):
        found.append(
            "The model also tells its uncertainty and the pixels free of sample. This graph gives "
            "the background alone."
        )
    return " ".join(found)


def joined_fits(simulated: Mapping[str, Any], real: Mapping[str, Any]) -> Facts:
    """Range of a model that learned from simulated sessions and real images.

    Levels of both count, and darks as both had them; of all else the real images tell.
    """
    joined: Facts = {**simulated, **real}
    levels = [part["level_counts"] for part in (simulated, real) if part.get("level_counts")]
    if levels:
        joined["level_counts"] = [min(low for low, _ in levels), max(high for _, high in levels)]
    if simulated.get("dark") and simulated["dark"] != real.get("dark", simulated["dark"]):
        joined["dark"] = "either"
    return joined


def fits(card: Mapping[str, Any]) -> Facts:
    """The range of data that a model is for; of older cards, what their training tells.

    Returns
    -------
    dict
        Any of ``binning`` (list of int), ``pixel_nm``, ``field_um``, ``level_counts``,
        ``energy_ev`` (least and greatest each) and ``dark`` (``removed``: trained with darks
        removed; ``kept``: with the pedestal left in; ``either``).
    """
    stated = card.get("fits")
    if not isinstance(stated, Mapping):
        training = card.get("training")
        stated = training_facts(training if isinstance(training, Mapping) else {})["fits"]
    ranges = ("pixel_nm", "field_um", "level_counts", "energy_ev")
    good: Facts = {key: list(stated[key]) for key in ranges if _is_range(stated.get(key))}
    if isinstance(stated.get("binning"), list):
        good["binning"] = [int(b) for b in stated["binning"] if isinstance(b, (int, float))]
    if stated.get("dark") in ("removed", "kept", "either"):
        good["dark"] = stated["dark"]
    return good


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) == 2
        and all(isinstance(v, (int, float)) and np.isfinite(v) and v > 0 for v in value)
    )
