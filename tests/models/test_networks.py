import pytest
import torch

from napari_txm_bgcorr.errors import ConfigError
from napari_txm_bgcorr.models.networks import (
    NETWORKS,
    ResidualBlock,
    UNet256,
    build_discriminator,
    build_generator,
    count_parameters,
)
from napari_txm_bgcorr.models.tensors import staleness_value
from napari_txm_bgcorr.training.config import NetworkConfig

SMALL = {
    "subpixel-unet": {"features": (8, 8, 16)},
    "subpixel4-unet": {"features": (8, 8, 16)},
    "subpixel-basicunet": {"features": (8, 8, 8, 8, 8, 8)},
    "unet256": {"ngf": 2},
    "basicunet": {"features": (8, 8, 8, 8, 8, 8)},
    "residual-unet": {"features": (8, 8, 16)},
    "attention-unet": {"features": (8, 8, 16)},
    "dynunet": {"features": (8, 8, 16)},
    "swin-unetr": {},
    "unetr": {},
}


def small(name: str, field_px: int = 64) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_generator(NetworkConfig(name=name, field_px=field_px, **SMALL[name]))


def macs(network: torch.nn.Module, x: torch.Tensor) -> int:
    """Multiplications of the convolutions in one forward pass."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    hooks = [
        m.register_forward_hook(count) for m in network.modules() if isinstance(m, torch.nn.Conv2d)
    ]
    with torch.inference_mode():
        network(x)
    for hook in hooks:
        hook.remove()
    return total


def test_every_network_is_tested():
    assert set(SMALL) == set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_output_starts_as_the_prior_and_every_weight_learns(name):
    network = small(name)
    x = torch.randn(2, 3, 64, 64)
    out = network(x)
    assert torch.equal(out, x[:, 1:2])
    kernels = [p for p in network.parameters() if p.dim() > 1]
    for kernel in kernels:
        torch.nn.init.normal_(kernel, std=0.1)
    network(x).square().mean().backward()
    assert all(bool(p.grad is not None and p.grad.abs().sum() > 0) for p in kernels)


def _last(network):
    kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    return [m for m in network.modules() if isinstance(m, kinds)][-1]


@pytest.mark.parametrize("size", [(50, 37), (64, 64), (33, 64), (1, 1)])
def test_odd_sizes_come_back_as_they_went_in(size):
    network = small("subpixel-unet")
    assert network(torch.randn(1, 3, *size)).shape == (1, 1, *size)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_tile_does_not_depend_on_the_others_of_its_batch(name):
    """Nor on what was seen in training: the averaged weights would lack such statistics."""
    network = small(name)
    assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in network.modules())
    torch.nn.init.normal_(_last(network).weight, std=0.1)
    x = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        together, alone = network(x), network(x[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)


def test_unet256_has_the_parameters_of_pix2pix():
    with torch.device("meta"):
        network = UNet256(64, in_channels=3)
    assert count_parameters(network) == pytest.approx(54.4e6, rel=0.01)


def test_default_network_fits_its_budget():
    network = build_generator(NetworkConfig())
    assert count_parameters(network) * 4 <= 16 * 2**20
    assert macs(network, torch.zeros(1, 3, 256, 256)) <= 1.3e9


def test_default_network_sees_staleness_position_and_the_far_corner():
    network = small("subpixel-unet")
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            torch.nn.init.normal_(module.second.weight, std=0.1)
    torch.nn.init.normal_(_last(network).weight, std=0.1)
    x = torch.zeros(1, 3, 64, 64)
    with torch.inference_mode():
        base = network(x)
        assert base[0, 0, 2:-2, 2:-2].std() > 1e-3  # blank input: only coordinates differ
        stale = x.clone()
        stale[:, 2] = 0.5
        assert (network(stale) - base)[0, 0, 30:34, 30:34].abs().max() > 1e-4
        spot = x.clone()
        spot[:, 0, :4, :4] = 1
        assert (network(spot) - base)[0, 0, -4:, -4:].abs().max() > 1e-8


def test_a_scaled_correction_shrinks_with_the_expected_error_of_the_prior():
    torch.manual_seed(0)
    network = build_generator(NetworkConfig(features=(8, 8), scaled=True))
    torch.nn.init.constant_(_last(network).bias, 0.2)
    sizes = []
    for rms in (0.001, 0.01, 0.05, 0.1, 0.4):
        x = torch.zeros(1, 3, 16, 16)
        x[:, 2] = staleness_value(torch.tensor(rms))
        sizes.append(float(network(x).detach().mean()) / 0.2)
    assert sizes == pytest.approx([0.01, 0.1, 0.5, 1, 1], rel=1e-3)
    assert float(network(torch.zeros(1, 3, 16, 16)).detach().mean()) == pytest.approx(0.2)


def test_discriminator_scores_patches():
    scores = build_discriminator(4, 3)(torch.randn(2, 4, 64, 64))[-1]
    assert scores.shape[:2] == (2, 1) and 1 < scores.shape[2] < 64


def test_unknown_names_and_sizes_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"network.name: 'resnet' is unknown"):
        build_generator(NetworkConfig(name="resnet"))
    with pytest.raises(ConfigError, match=r"network.features"):
        build_generator(NetworkConfig(features=(6, 10)))
