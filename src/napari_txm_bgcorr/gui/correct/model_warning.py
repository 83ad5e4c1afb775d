"""Warnings about data outside a model's range, and references to fine-tune it on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_txm_bgcorr.core import Scan, reference_doubts
from napari_txm_bgcorr.errors import MethodError
from napari_txm_bgcorr.gui.session import CorrectionJob, model_label

__all__ = ["doubts", "in_one", "references", "refuse_no_counts"]

REMEDY = "check the result, or fine-tune"
LOOK_AT = 5  # tiles
HERE = "Check the result against a reference, or fine-tune the model on today's."


def doubts(job: CorrectionJob, scan: Scan) -> list[str]:
    """List the warnings about a scan outside the model's card, or unlike its training data.

    Warnings with the same remedy are one sentence; those with a remedy of their own, and
    references of another energy, are further sentences.
    """
    from napari_txm_bgcorr.backgrounds import LEARNED

    apart = reference_doubts(job.config.method, scan)
    if job.config.method not in LEARNED:
        return apart
    from napari_txm_bgcorr.models import fitness, read_card, resolve_model, unlike_training

    name = f"Model {model_label(job.config.model)}"
    found = fitness(read_card(resolve_model(job.config.model)), scan, name)
    return in_one(found + unlike_training(scan, job.config.model, name), name) + apart


def refuse_no_counts(scan: Scan, name: str) -> None:
    """Refuse a scan that no light has reached, or whose pixels are no counts.

    Raises
    ------
    MethodError
        If no tile of a few has a median above zero: empty, all NaN, a logarithm, a difference.
    """
    for i in np.unique(np.linspace(0, len(scan) - 1, LOOK_AT).round().astype(int)):
        tile = np.asarray(scan.tiles[int(i)])[::4, ::4]
        known = tile[np.isfinite(tile)]
        if known.size and float(np.median(known)) > 0:
            return
    raise MethodError(
        f"{name}: most pixels are zero, below zero or not a number, so they are no counts; "
        "select an image as the camera gave it"
    )


def in_one(found: Sequence[str], name: str) -> list[str]:
    """Join the sentences ``name: fact; remedy`` that have the remedy in common."""
    facts, others = [], []
    for sentence in found:
        fact, _, remedy = sentence.removeprefix(f"{name}: ").rpartition("; ")
        if remedy == REMEDY:
            facts.append(fact)
        else:
            others.append(sentence.replace("give --dark", "add them under “Darks”"))
    if facts:
        facts = [f"{name} may not suit these images: {'; '.join(facts)}. {HERE}"]
    return facts + others


def references(job: CorrectionJob, scan: Scan) -> tuple[Path, ...]:
    """Files a model could be fine-tuned on: those given, or the scan's own."""
    own = scan.source.path
    if job.config.references or scan.flats is None or not own.exists():
        return job.config.references
    return (own,)
