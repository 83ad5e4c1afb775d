"""A trivial source of pairs for every test of the engine, and one torch thread."""

import pytest
import torch

from napari_txm_bgcorr.engine import pairs
from tests.engine.toy import ToyPairs


@pytest.fixture(autouse=True)
def _toy_pairs(monkeypatch):
    monkeypatch.setitem(pairs.PAIRS, "toy", ToyPairs)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
