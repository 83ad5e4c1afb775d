import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_txm_bgcorr.backgrounds.generator import Generator
from napari_txm_bgcorr.errors import ConfigError, ModelError, WriteError
from napari_txm_bgcorr.models.checkpoint import load_model, save_model
from napari_txm_bgcorr.models.export import onnx as export
from napari_txm_bgcorr.models.export.formats import export_model
from napari_txm_bgcorr.models.export.graph import BlindBackground, CountsToBackground
from napari_txm_bgcorr.models.export.onnx import check_onnx
from napari_txm_bgcorr.models.networks import build_generator
from napari_txm_bgcorr.models.tensors import log_field, upsample
from napari_txm_bgcorr.simulation.acquisition import simulate_tile
from napari_txm_bgcorr.training.config import NetworkConfig

pytestmark = pytest.mark.timeout(900)  # exporting takes its time on a busy machine
SMALL = NetworkConfig(name="subpixel4-unet", field_px=32, features=(4, 4), scaled=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    torch.manual_seed(5)
    network = build_generator(SMALL)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    place = tmp_path_factory.mktemp("export") / "small.safetensors"
    save_model(
        place,
        network,
        SMALL,
        training={"data": {"kind": "simulated"}},
        metrics={"validation_error_sf": {"none": 0.05}},
    )
    return place


@pytest.fixture(scope="module")
def onnx_file(path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    done = export_model(path, path.with_name("small.onnx"))
    return path.with_name("small.onnx"), done


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (45, 33), (20, 60), (12, 18)])
def test_the_graph_resamples_as_the_program_does(size):
    from napari_txm_bgcorr.models.export.graph import _cubic, _log_field

    counts = 500 + 5000 * torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(_log_field(counts, 32), log_field(counts, 32), atol=1e-5, rtol=0)
    field = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(_cubic(field, *size), upsample(field, size), atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", [64, 50])
def test_the_graph_is_the_program(path, size):
    scan = simulate_tile(size=size, darks=1, seed=4).scan
    expected = Generator(str(path), "cpu").fit(scan).background(scan.tiles[:])
    dark = scan.dark()
    counts = torch.from_numpy(scan.tiles[:].astype(np.float32) - dark)[:, None]
    with torch.inference_mode():
        found = BlindBackground(load_model(path).network, 32)(counts)[:, 0].numpy() + dark
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_spoiled_pixels_do_not_spread(path):
    counts = torch.full((1, 1, 64, 64), 9000.0)
    clean = BlindBackground(load_model(path).network, 32)(counts)
    counts[0, 0, 5, 7], counts[0, 0, 30, 30] = torch.nan, torch.inf
    counts[0, 0, 0, 0] = torch.nan
    spoiled = BlindBackground(load_model(path).network, 32)(counts)
    torch.testing.assert_close(spoiled, clean, rtol=0.1, atol=0)  # a corner has few neighbours


def test_onnx_takes_counts_of_any_size_and_gives_torchs_background(onnx_file, path):
    import onnxruntime

    place, done = onnx_file
    assert len(done["checked"]) == 3 and len({tuple(c["size"]) for c in done["checked"]}) == 3
    assert all(c["difference"] <= 1e-3 for c in done["checked"])
    session = onnxruntime.InferenceSession(place, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["counts", "prior", "prior_error"]
    meta = session.get_modelmeta().custom_metadata_map
    assert json.loads(meta["card"])["sha256"] == load_model(path).sha256
    rng = np.random.default_rng(0)
    counts = rng.uniform(4000, 9000, (3, 1, 70, 41)).astype(np.float32)
    prior, error = counts[::-1].copy(), np.array([-1, 0.01, 0.2], np.float32)
    feeds = {"counts": counts, "prior": prior, "prior_error": error}
    found = session.run(None, feeds)[0]
    graph = CountsToBackground(load_model(path).network, 32)
    with torch.inference_mode():
        expected = graph(*map(torch.from_numpy, feeds.values())).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_an_export_that_computes_something_else_is_refused(onnx_file, path):
    model = load_model(path)
    with torch.no_grad():
        next(model.network.parameters()).mul_(3)
    with pytest.raises(ModelError, match=r"differs by .* from torch at 32 x 32 px"):
        check_onnx(onnx_file[0].read_bytes(), model)


def test_a_network_that_cannot_be_expressed_is_named(path, monkeypatch):
    pytest.importorskip("onnxscript")

    def fails(*_, **__):
        raise torch.onnx.OnnxExporterError("no such operator. More text")

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(ModelError, match=r"subpixel4-unet cannot become ONNX \(no such operator"):
        export_model(path, path.with_name("x.onnx"))
    assert not path.with_name("x.onnx").exists()


# the validator leaves the package's file open, which Python tells when it is collected
@pytest.mark.filterwarnings("ignore:.*zip:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file.*zip:ResourceWarning")
def test_the_package_is_accepted_and_computes_its_test(path):
    pytest.importorskip("bioimageio.core")
    pytest.importorskip("onnxscript")
    out = path.with_name("small.zip")
    with export.quiet():  # warnings of its own
        import bioimageio.core
        from bioimageio.spec import load_description
    try:
        done = export_model(path, out)
    except ConfigError as error:
        assert not out.exists()
        pytest.skip(str(error))  # a pydantic that bioimageio.spec cannot serialise with
    assert done["validator"] in ("passed", "valid-format") and len(done["checked"]) == 3
    with zipfile.ZipFile(out) as package:
        names = set(package.namelist())
        text = package.read("README.md").decode()
        test = np.load(package.open("test_counts.npy"))
    assert {"weights.onnx", "test_counts.npy", "test_background.npy"} <= names
    assert "## Validation" in text and "none: 0.0500" in text
    with export.quiet():
        described = load_description(out, perform_io_checks=True)
        predicted = bioimageio.core.predict(model=described, inputs=test)
    found = next(iter(predicted.members.values())).data.to_numpy()
    graph = BlindBackground(load_model(path).network, 32)
    with torch.inference_mode():
        np.testing.assert_allclose(found, graph(torch.from_numpy(test)).numpy(), rtol=1e-3)


def test_safetensors_come_with_their_card(path, tmp_path):
    done = export_model(path, tmp_path / "deep" / "copy.safetensors")
    assert load_model(tmp_path / "deep" / "copy.safetensors").sha256 == load_model(path).sha256
    assert done["card"].endswith("copy.json")


def test_places_and_kinds_that_cannot_be_are_refused(path, tmp_path):
    with pytest.raises(ConfigError, match=r"ends in .onnx, .zip, .safetensors"):
        export_model(path, tmp_path / "a.pt")
    (tmp_path / "a.onnx").write_text("mine")
    with pytest.raises(WriteError, match="exists already"):
        export_model(path, tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").read_text() == "mine"


def test_a_missing_package_is_named(path, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"package onnxscript: .*\[export\]"):
        export_model(path, tmp_path / "a.onnx")


def test_an_interrupted_export_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), export.whole_file(tmp_path / "a.onnx") as part:
        part.write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_the_export_leaves_the_resident_network_alone(path):
    model = load_model(path)
    before = [p.clone() for p in model.network.parameters()]
    graph = CountsToBackground(replace(model).network, 32)
    with torch.no_grad():
        next(graph.parameters()).add_(1)
    assert all(map(torch.equal, before, model.network.parameters()))
