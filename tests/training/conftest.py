"""A trivial source of pairs for every test of the training, and one torch thread."""

import pytest
import torch

from napari_txm_bgcorr.training.data import pairs
from tests.training.kill_client import Server
from tests.training.toy import ToyPairs


@pytest.fixture(autouse=True)
def _toy_pairs(monkeypatch):
    monkeypatch.setitem(pairs.PAIRS, "toy", ToyPairs)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def _server(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("server") / "stderr")
    yield made
    made.close()


@pytest.fixture
def server(_server, tmp_path):
    """Trains in processes of its own, in the test's folder; see `kill_server`."""
    return _server.use(tmp_path)
