"""The fixed validation tiles of a run: their error, and one of them as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_txm_bgcorr.core.errors import ConfigError
from napari_txm_bgcorr.engine.pairs import PairSource, to_batch
from napari_txm_bgcorr.engine.tensors import Batch, scale_free_rms

__all__ = ["preview", "validate", "validation_cases"]

AT_ONCE = 16  # tiles


def validation_cases(source: PairSource) -> dict[str, Batch]:
    """Fixed tiles by case.

    Raises
    ------
    ConfigError
        If there are none.
    """
    cases = {case: to_batch(pairs) for case, pairs in source.validation().items()}
    if not cases or any(batch.target.shape[0] == 0 for batch in cases.values()):
        raise ConfigError("data: the validation set is empty; give more sessions or files")
    return cases


@torch.inference_mode()
def validate(
    network: nn.Module,
    cases: Mapping[str, Batch],
    device: torch.device,
    at_once: int = AT_ONCE,
    judged: Sequence[str] = (),
) -> dict[str, float]:
    """Mean scale-free error by case, of the priors as ``<case>_prior``, and a ``mean``.

    Parameters
    ----------
    network : Module
        On the device.
    cases : mapping of Batch
    device : torch.device
    at_once : int
        Tiles on the device at once.
    judged : sequence of str
        Cases that make the mean, those of them that there are; empty, or none there: all.
    """
    result = {}
    for case, batch in cases.items():
        errors = []
        for part in zip(*(torch.split(t, at_once) for t in batch), strict=True):
            x, true, weight = (t.to(device) for t in part)
            errors.append(scale_free_rms(network(x).float() - true, weight))
        result[case] = float(torch.cat(errors).mean())
        if bool((batch.inputs[:, 2] > 0).any()):  # tiles without a prior have no such error
            x, true, weight = batch
            result[f"{case}_prior"] = float(scale_free_rms(x[:, 1:2] - true, weight).mean())
    counted = [case for case in cases if case in judged] or list(cases)
    result["mean"] = float(np.mean([result[case] for case in counted]))
    return result


@torch.inference_mode()
def preview(
    network: nn.Module, cases: Mapping[str, Batch], device: torch.device
) -> dict[str, NDArray[np.float32]]:
    """First tile of the first case: ``raw``, ``prior``, ``predicted``, ``true`` log counts.

    Each `(F, F)` float32, the raw tile's median removed.
    """
    x, true, _ = next(iter(cases.values()))
    predicted = network(x[:1].to(device)).float().cpu()
    images = {"raw": x[0, 0], "prior": x[0, 1], "predicted": predicted[0, 0], "true": true[0, 0]}
    return {name: image.cpu().numpy() for name, image in images.items()}
