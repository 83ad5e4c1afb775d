"""The fixed validation tiles of a run: their error, and one of them as pictures.

Of a probabilistic network also how true its uncertainty is (share of pixels within one and two
stated standard deviations, one scale a tile removed) and how well it tells free pixels (area
under the receiver's curve: 0.5 guesses, 1 is right everywhere).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.models import Batch, scale_free_rms

from .data.pairs import PairSource, to_batch

__all__ = ["preview", "split_figures", "validate", "validation_cases"]

AT_ONCE = 16  # tiles
CALIBRATION = ("_within_1_sd", "_within_2_sd", "_free_auc")  # ends of names
SPARSE = 4  # every such pixel a side serves for the receiver's curve


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

    Of a probabilistic network also ``<case>`` with the ends in `CALIBRATION`.

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
        errors, outputs = [], []
        for part in zip(*(torch.split(t, at_once) for t in batch), strict=True):
            x, true, weight, _ = (t.to(device) for t in part)
            output = network(x).float()
            errors.append(scale_free_rms(output[:, :1] - true, weight))
            outputs.append(output[..., ::SPARSE, ::SPARSE].cpu())
        result[case] = float(torch.cat(errors).mean())
        if bool((batch.inputs[:, 2] > 0).any()):  # tiles without a prior have no such error
            x, true, weight, _ = batch
            result[f"{case}_prior"] = float(scale_free_rms(x[:, 1:2] - true, weight).mean())
        if outputs[0].shape[1] > 1:
            found = _calibration(torch.cat(outputs), batch)
            result |= {case + end: value for end, value in found.items()}
    counted = [case for case in cases if case in judged] or list(cases)
    result["mean"] = float(np.mean([result[case] for case in counted]))
    return result


def split_figures(validation: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Errors, and figures of calibration, out of what `validate` gives."""
    told = {name: v for name, v in validation.items() if name.endswith(CALIBRATION)}
    return {name: v for name, v in validation.items() if name not in told}, told


def _calibration(sparse: Tensor, batch: Batch) -> dict[str, float]:
    """Coverage, and area under the receiver's curve where free pixels are known."""
    true, weight, free = (t.cpu()[..., ::SPARSE, ::SPARSE] for t in batch[1:])
    lit = weight > 0.5
    count = lit.sum((2, 3), keepdim=True).clamp_min(1)
    difference = sparse[:, :1] - true
    difference = difference - (difference * lit).sum((2, 3), keepdim=True) / count
    sigmas = (difference.abs() / (0.5 * sparse[:, 1:2]).exp())[lit]
    found = {f"_within_{k}_sd": float((sigmas <= k).float().mean()) for k in (1, 2)}
    known = lit & (free >= 0)
    truth = free[known] > 0.5
    if 0 < int(truth.sum()) < truth.numel():
        found["_free_auc"] = _auc(sparse[:, 2:3][known], truth)
    return found


def _auc(score: Tensor, truth: Tensor) -> float:
    """Chance that a true pixel scores higher than a false one."""
    ranks = torch.empty(len(score), dtype=torch.float64)
    ranks[score.argsort()] = torch.arange(1.0, len(score) + 1, dtype=torch.float64)
    positive = int(truth.sum())
    above = float(ranks[truth].sum()) - positive * (positive + 1) / 2
    return above / (positive * (len(score) - positive))


@torch.inference_mode()
def preview(
    network: nn.Module, cases: Mapping[str, Batch], device: torch.device
) -> dict[str, NDArray[np.float32]]:
    """First tile of the first case: ``raw``, ``prior``, ``predicted``, ``true`` log counts.

    Each `(F, F)` float32, the raw tile's median removed.
    """
    x, true, *_ = next(iter(cases.values()))
    predicted = network(x[:1].to(device)).float().cpu()
    images = {"raw": x[0, 0], "prior": x[0, 1], "predicted": predicted[0, 0], "true": true[0, 0]}
    return {name: image.cpu().numpy() for name, image in images.items()}
