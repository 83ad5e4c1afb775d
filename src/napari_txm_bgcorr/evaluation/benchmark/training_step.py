"""One training step of pix2pix in the plain way, and with one acceleration after the other.

The plain step is written from the paper (Isola et al. 2017, sections 3.1 and 3.3, appendix 6):
alternate one step on the discriminator with one on the generator, batch 1, Adam with rate
2e-4 and momenta 0.5 and 0.999, cross entropy, 100 x L1, a 70 px PatchGAN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_txm_bgcorr.models import UNet256, build_discriminator
from napari_txm_bgcorr.training import fft_l1

from .products import with_products
from .training_data import TimedPairs

__all__ = ["Rig", "Setting", "make_networks", "settings_for"]

L1_WEIGHT = 100.0
FFT_WEIGHT = 100.0
LEARNING_RATE = 2e-4
BETAS = (0.5, 0.999)
WARM_UP = 3  # eager steps before a CUDA graph is captured


@dataclass(frozen=True)
class Setting:
    """One row: what is switched on.

    Attributes
    ----------
    name : str
        Of the row.
    source : str
        Row of `training_data.SOURCES`.
    batch : int
    channels_last, bf16, fused : bool
        Memory format, autocast, fused Adam.
    detached : bool
        The discriminator's step sends no gradient into the generator.
    one_forward : bool
        Both steps share one generator pass; true and predicted pairs go through the
        discriminator together; the generator's step takes no gradient of the discriminator.
    products : bool
        The generator's coarse levels as products of matrices (`products`).
    compiled, graphed : bool
        torch.compile of both networks; the whole step as one CUDA graph.
    needs_cuda : bool
    note : str
        Said in the table.
    """

    name: str
    source: str = "files"
    batch: int = 1
    channels_last: bool = False
    bf16: bool = False
    fused: bool = False
    detached: bool = False
    one_forward: bool = False
    products: bool = False
    compiled: bool = False
    graphed: bool = False
    needs_cuda: bool = False
    note: str = ""


def settings_for(device: str, batches: tuple[int, ...]) -> list[Setting]:
    """Rows in their order; each adds to the one before.

    Parameters
    ----------
    device : str
        On CPUs `choice` takes out what does not pay there; on Apple GPUs bf16 is
        measured, but not taken along.
    batches : tuple of int
        Batch sizes above 1.
    """
    mps = device == "mps"
    held: dict[str, Any] = {}
    rows = [Setting("naive loop")]

    def add(name: str, note: str = "", **more: Any) -> None:
        held.update(more)
        rows.append(Setting(name, note=note, **held))

    add("cached data", source="memory")
    add("device-resident data", source="device")
    add("channels_last", channels_last=True)
    add("bf16", "not kept in the rows below" if mps else "", bf16=True)
    if mps:
        held["bf16"] = False
    add("fused Adam", fused=True)
    add("one generator forward, detached D", detached=True, one_forward=True)
    if device == "cpu":  # on GPUs cuDNN and MPS have kernels for small maps
        add("coarse levels as matrix products", products=True)
    for batch in batches:
        add(f"batch {batch}", batch=batch)
    held["needs_cuda"] = True
    for batch in (1, *batches):
        add(f"compile of G and D, batch {batch}", batch=batch, compiled=True)
    held["compiled"] = False
    for batch in (1, *batches):
        add(f"CUDA graphs, batch {batch}", batch=batch, graphed=True)
    held["compiled"] = True
    for batch in (1, *batches):
        add(f"compile and CUDA graphs, batch {batch}", batch=batch)
    careful = "for comparison: decoding, fp32, but one forward and a detached D step"
    rows.append(Setting("plain loop, detached", note=careful, detached=True, one_forward=True))
    rows += [
        Setting(f"naive loop, batch {batch}", batch=batch, note="for comparison")
        for batch in batches
    ]
    return rows


def make_networks(device: str, seed: int = 0, ngf: int = 64) -> tuple[nn.Module, nn.Module]:
    """Generator ``unet256`` (54.4 M parameters) and 70 px PatchGAN, as pix2pix starts them."""
    torch.manual_seed(seed)
    generator, discriminator = UNet256(ngf), build_discriminator(ngf, 3)
    for module in generator.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
    return generator.to(device).train(), discriminator.to(device).train()


class Rig:
    """Networks and optimisers under one setting.

    Parameters
    ----------
    setting : Setting
    networks : (Module, Module)
        Generator and discriminator; their memory format is changed in place.
    source : TimedPairs
    device : str
    """

    def __init__(
        self,
        setting: Setting,
        networks: tuple[nn.Module, nn.Module],
        source: TimedPairs,
        device: str,
    ) -> None:
        self.setting, self.source = setting, source
        self.kind = torch.device(device).type
        last = setting.channels_last
        self.format = torch.channels_last if last else torch.contiguous_format
        self.generator, self.discriminator = (
            network.to(memory_format=self.format)  # type: ignore[call-overload]
            for network in networks
        )
        self.parameters_d = list(self.discriminator.parameters())
        self.adam_g, self.adam_d = self._adam(self.generator), self._adam(self.discriminator)
        if setting.products:
            self.generator = with_products(self.generator)
        if setting.compiled:
            # kernels for this very batch: else the second size met gets slower ones for any size
            self.generator = torch.compile(self.generator, dynamic=False)
            self.discriminator = torch.compile(self.discriminator, dynamic=False)
        self._graphs: dict[bool, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def _adam(self, network: nn.Module) -> torch.optim.Adam:
        extra: dict[str, Any] = {"fused": True} if self.setting.fused else {}
        if self.setting.graphed:
            extra["capturable"] = True
        return torch.optim.Adam(network.parameters(), LEARNING_RATE, BETAS, **extra)

    def step(self, fft: bool) -> None:
        """Draw a batch and train on it."""
        x, true = self.source.draw(self.setting.batch)
        x = x.contiguous(memory_format=self.format)
        if self.setting.graphed:
            self._replay(x, true, fft)
        else:
            self._train(x, true, fft)

    def _train(self, x: Tensor, true: Tensor, fft: bool) -> None:
        if self.setting.one_forward:
            self._fast(x, true, fft)
        else:
            self._plain(x, true, fft)

    def _plain(self, x: Tensor, true: Tensor, fft: bool) -> None:
        """Step on the discriminator, then on the generator, as the algorithm is written."""
        fake = self.predict(x)
        real_score, fake_score = self._score(x, true), self._score(x, fake)
        self.adam_d.zero_grad()
        (0.5 * (_entropy(real_score, 1) + _entropy(fake_score, 0))).backward()
        self.adam_d.step()

        fake = self.predict(x)
        loss = _entropy(self._score(x, fake), 1) + L1_WEIGHT * (fake - true).abs().mean()
        if fft:
            spectra = torch.fft.fft2(fake.float()), torch.fft.fft2(true)
            loss = loss + FFT_WEIGHT * (spectra[0] - spectra[1]).abs().mean() / true.shape[-1]
        self.adam_g.zero_grad()
        loss.backward()
        self.adam_g.step()

    def _fast(self, x: Tensor, true: Tensor, fft: bool) -> None:
        """The same two updates from one generator pass."""
        fake = self.predict(x)
        joined = torch.cat([true, fake.detach()])
        # no norm mixes samples: both halves may go together
        real_score, fake_score = self._score(torch.cat([x, x]), joined).chunk(2)
        self.adam_d.zero_grad(set_to_none=True)
        (0.5 * (_entropy(real_score, 1) + _entropy(fake_score, 0))).backward()
        self.adam_d.step()

        self._freeze_discriminator(True)
        loss = _entropy(self._score(x, fake), 1) + L1_WEIGHT * (fake - true).abs().mean()
        if fft:
            loss = loss + FFT_WEIGHT * fft_l1(fake, true, torch.ones_like(true))
        self.adam_g.zero_grad(set_to_none=True)
        loss.backward()
        self.adam_g.step()
        self._freeze_discriminator(False)

    def _freeze_discriminator(self, frozen: bool) -> None:
        for parameter in self.parameters_d:
            parameter.requires_grad_(not frozen)

    def predict(self, x: Tensor) -> Tensor:
        """Log background `(N, 1, F, F)` float32 of inputs `(N, 3, F, F)`."""
        with torch.autocast(self.kind, torch.bfloat16, enabled=self.setting.bf16):
            out: Tensor = self.generator(x)
        return out.float()

    def _score(self, x: Tensor, background: Tensor) -> Tensor:
        pair = torch.cat([x, background], 1).contiguous(memory_format=self.format)
        with torch.autocast(self.kind, torch.bfloat16, enabled=self.setting.bf16):
            scores: Tensor = self.discriminator(pair)[-1]
        return scores.float()

    def _replay(self, x: Tensor, true: Tensor, fft: bool) -> None:
        """Copy the batch into the graph's own tensors and launch the whole step at once."""
        if fft not in self._graphs:
            self._graphs[fft] = self._capture(x, true, fft)
        graph, held_x, held_true = self._graphs[fft]
        held_x.copy_(x)
        held_true.copy_(true)
        graph.replay()

    def _capture(
        self, x: Tensor, true: Tensor, fft: bool
    ) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        held_x, held_true = x.clone(memory_format=torch.preserve_format), true.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._train(held_x, held_true, fft)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._train(held_x, held_true, fft)
        return graph, held_x, held_true

    def release(self) -> None:
        """Give gradients and optimiser state back; the networks stay."""
        self._graphs.clear()
        self.adam_g.zero_grad(set_to_none=True)
        self.adam_d.zero_grad(set_to_none=True)
        self.adam_g.state.clear()
        self.adam_d.state.clear()
        if self.setting.compiled:
            torch.compiler.reset()  # one row's sizes do not count against the next row's

    def fft_alone(self) -> Callable[[], None]:
        """The FFT loss by itself, forward and backward, for its share of a step."""
        _, true = self.source.draw(self.setting.batch)
        fake = (true + 0.01 * torch.randn_like(true)).requires_grad_()
        ones = torch.ones_like(true)

        def once() -> None:
            (FFT_WEIGHT * fft_l1(fake, true, ones)).backward()
            fake.grad = None

        return once


def _entropy(scores: Tensor, label: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(scores, torch.full_like(scores, label))
