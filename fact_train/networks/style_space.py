"""StyleSpace: the channel styles of a generator as one vector (Wu et al. 2021, arXiv:2011.12799).

A coordinate is one output of the affine of a layer: the factor of an input channel; with K style vectors the
factor of a channel in a row; in AdaIN a scale or a shift. All coordinates of a layer lie side by side, layers
are in order of evaluation. ToRGB layers with a style are part of StyleSpace; StylEx leaves their coordinates
alone (`coordinates`).

Style matrices and adaptive convolutions have no style per channel, and so no StyleSpace.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fact_metrics.base.errors import UserError
from fact_train.networks.generator import Generator, SynthesisBlock
from fact_train.networks.injection import STYLE_INJECTIONS, KnownInput, PlainConv
from fact_train.networks.ops import upsample_images

Noise = Sequence[Tensor | None]


@dataclass(frozen=True)
class StyleLayer:
    """A layer with styles: its name, such as b8.conv0, and its coordinates start to start + size - 1.

    `shape` is that of its style of one image: (I,), or (rows, I) with several style vectors.
    """

    name: str
    start: int
    shape: tuple[int, ...]
    torgb: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def stop(self) -> int:
        return self.start + self.size


class StyleSpace:
    """The StyleSpace of a generator: `read` styles [N, S] of ws, edit them, `render` images.

    `layers` are those with styles, `unstyled` the names of those without any (plain ToRGB). The weights are
    shared with the generator, not copied. UserError for an injection without styles per channel.
    """

    def __init__(self, generator: Generator) -> None:
        own = generator.synthesis
        none_ws = torch.zeros(1, own.num_ws * own.vectors, own.w_dim, device=own.b4.const.device)
        self._own, self._affines, self.layers = own, [], []
        shared = {id(t): t for t in (*own.parameters(), *own.buffers())}
        self._given = copy.deepcopy(own, shared)
        modules = dict(self._given.named_modules())
        start = 0
        for name, module, w in own.styled_layers(none_ws):
            _check(module.inject, name)
            shape = tuple(_styles(module.inject, w).shape[1:])
            layer = StyleLayer(name, start, shape, torgb=name.endswith("torgb"))
            modules[name].inject.affine = _Given()
            self.layers.append(layer)
            start = layer.stop
        self.size = start
        named = {layer.name for layer in self.layers}
        every = [f"b{res}.torgb" for res in own.resolutions if getattr(own, f"b{res}").num_torgb]
        self.unstyled = tuple(name for name in every if name not in named)

    @property
    def names(self) -> list[str]:
        """Every coordinate as layer.index, such as b8.conv0.17."""
        return [f"{layer.name}.{i}" for layer in self.layers for i in range(layer.size)]

    def coordinates(self, *, torgb: bool = False) -> Tensor:
        """Numbers of the coordinates of all convolutions; with `torgb` those of ToRGB layers as well."""
        parts = [torch.arange(one.start, one.stop) for one in self.layers if torgb or not one.torgb]
        return torch.cat(parts)

    def layer_of(self, coordinate: int) -> StyleLayer:
        """The layer of a coordinate. IndexError outside of StyleSpace."""
        for layer in self.layers:
            if layer.start <= coordinate < layer.stop:
                return layer
        raise IndexError(f"coordinate {coordinate} of {self.size}")

    def coordinate(self, layer: str, index: int) -> int:
        """The number of a coordinate by the name of its layer. KeyError if there is none."""
        for one in self.layers:
            if one.name == layer and 0 <= index < one.size:
                return one.start + index
        raise KeyError(f"{layer}.{index}")

    def read(self, ws: Tensor) -> Tensor:
        """Styles [N, S] of ws [N, num_ws * K, w_dim]; differentiable."""
        found = self._own.styled_layers(ws.float())
        return torch.cat([_styles(module.inject, w).flatten(1) for _, module, w in found], dim=1)

    def render(self, styles: Tensor, noise: Noise | None = None) -> Tensor:
        """Images [N, C, H, W] of styles [N, S], float32 in about [-1, 1], unclamped; differentiable.

        `noise` holds a map [N or 1, 1, h, w] per layer; None takes the constant maps of the network.
        """
        given, ws = self._given, self._by_layer(styles)
        noise = self.noise(noise, len(styles))
        x = img = None
        first_noise = 0
        for res in given.resolutions:
            block = getattr(given, f"b{res}")
            block_ws = [ws.get(f"b{res}.{name}", styles[:, :0]) for name in _parts(block)]
            block_noise = noise[first_noise : first_noise + block.num_conv]
            x, img = block(x, img, block_ws, block_noise, fused=True, dtype=torch.float32)
            first_noise += block.num_conv
        return img

    def edits(self, styles: Tensor, noise: Noise | None = None) -> "Edits":
        """Fast images of edits of one layer at a time, of one image: styles [S], noise maps of batch 1."""
        return Edits(self, styles, noise)

    def noise(self, given: Noise | None, n: int) -> Noise:
        """The maps that a call of n images uses, one per layer; None where a layer has none."""
        mode = "off" if self._own.noise == "off" else "const"
        return self._own._noise(torch.empty(n, 1, device="meta"), mode, given or None, None)

    def _by_layer(self, styles: Tensor) -> dict[str, Tensor]:
        if styles.ndim != 2 or styles.shape[1] != self.size:
            raise ValueError(f"styles are [N, {self.size}], got {list(styles.shape)}")
        return {one.name: self._as_w(one, styles[:, one.start : one.stop]) for one in self.layers}

    def _as_w(self, layer: StyleLayer, styles: Tensor) -> Tensor:
        """Styles [N, size] of a layer in the shape in which it takes w; rows that it does not read are 0."""
        w = styles.unflatten(1, layer.shape)
        if w.ndim == 3 and w.shape[1] < self._own.vectors:
            w = torch.cat([w, w.new_zeros(len(w), self._own.vectors - w.shape[1], w.shape[2])], dim=1)
        return w


class Edits:
    """Images of one latent in which one layer has other styles; only the layers from that one on run.

    All other layers are plain convolutions that the edits share, their styles folded into the weights.
    """

    @torch.no_grad()
    def __init__(self, space: StyleSpace, styles: Tensor, noise: Noise | None) -> None:
        given = space._given
        self._space, self._given = space, given
        self._noise = space.noise(noise, 1)
        ws = space._by_layer(styles[None])
        shared = {id(t): t for t in (*given.parameters(), *given.buffers())}
        self._plain = copy.deepcopy(given, shared)
        modules = dict(self._plain.named_modules())
        for layer in space.layers:
            inject = modules[layer.name].inject
            modules[layer.name].inject = PlainConv.of(inject, ws[layer.name])
        self._blocks = [f"b{res}" for res in given.resolutions]
        # By layer: its input, the residual of its block, and the layer made for edits of its style. By block:
        # output, RGB of ToRGB, image before it.
        self._inputs: dict[str, tuple[Tensor, Tensor | None]] = {}
        self._edited: dict[str, nn.Module] = {}
        self._outputs: dict[str, Tensor] = {}
        self._rgb: dict[str, Tensor | None] = {}
        self._before: dict[str, Tensor | None] = {}
        self.image = self._run(None, None)

    @torch.no_grad()
    def prepare(self, layer: StyleLayer) -> None:
        """Do what all edits of a layer share, so that several threads can `render` them at once."""
        if not layer.torgb:
            self._styled(layer.name)

    @torch.no_grad()
    def render(self, layer: StyleLayer, styles: Tensor) -> Tensor:
        """Images [E, C, H, W] where the layer has the styles [E, size]."""
        w = self._space._as_w(layer, styles)
        if layer.torgb:
            return self._recolour(layer.name.partition(".")[0], w)
        return self._run(layer.name, w)

    def _run(self, edited: str | None, w: Tensor | None) -> Tensor:
        """The image; from the edited layer on if there is one, else from the constant, storing all inputs."""
        x = img = None
        noise = iter(self._noise)
        started = edited is None
        for name in self._blocks:
            block = getattr(self._plain, name)
            if not started and edited.partition(".")[0] != name:
                for _ in range(block.num_conv):
                    next(noise)
                continue
            if edited is None:
                self._before[name] = img
            elif not started:
                img = self._before[name]
            x, img = self._run_block(name, block, x, img, noise, edited, w)
            started = True
        return img

    def _run_block(self, name, block, x, img, noise, edited, w):
        residual = None
        if block.is_first:
            x = block.const[None] if x is None else x
        elif block.architecture == "resnet" and x is not None:
            residual = block.skip(x, gain=math.sqrt(0.5))
        gain = {} if block.is_first or block.architecture != "resnet" else {"gain": math.sqrt(0.5)}
        for part in _parts(block)[: block.num_conv]:
            full = f"{name}.{part}"
            own_noise = next(noise)
            if edited is None:
                # Convolutions of the edits are fast in this layout, which a batch of 1 does not keep.
                x = x.contiguous(memory_format=torch.channels_last)
                self._inputs[full] = (x, residual)
            if x is None and full != edited:
                continue  # before the edited layer of this block
            options = gain if part == "conv1" else {}
            if full == edited:
                x, residual = self._inputs[full]
                x = self._styled(full)(
                    x.expand(len(w), -1, -1, -1), w, own_noise, fused=w.ndim == 3, **options
                )
            else:
                x = getattr(block, part)(x, None, own_noise, fused=False, **options)
            if part == "conv1" and residual is not None:
                x = residual + x
        img = None if img is None else upsample_images(img)
        rgb = block.torgb(x, x, fused=False) if block.num_torgb else None
        if edited is None:
            self._outputs[name] = x.contiguous(memory_format=torch.channels_last)
            self._rgb[name] = rgb
        if rgb is not None:
            img = rgb if img is None else img + rgb
        return x, img

    def _styled(self, full: str) -> nn.Module:
        """The layer with a style. Its input is known: one that is linear in the style becomes a product."""
        if full not in self._edited:
            name, _, part = full.partition(".")
            layer, (x, _) = getattr(getattr(self._given, name), part), self._inputs[full]
            if KnownInput.fits(layer.inject, x):
                inject, layer = layer.inject, copy.copy(layer)
                layer._modules = {**layer._modules, "inject": KnownInput(inject, x)}
            self._edited[full] = layer
        return self._edited[full]

    def _recolour(self, name: str, w: Tensor) -> Tensor:
        """Edits of a ToRGB layer: the image is a sum over blocks, and only the term of this one changes."""
        torgb = getattr(self._given, name).torgb
        x = self._outputs[name].expand(len(w), -1, -1, -1)
        change = torgb(x, w, fused=w.ndim == 3) - self._rgb[name]
        for _ in range(len(self._blocks) - 1 - self._blocks.index(name)):
            change = upsample_images(change)
        return self.image + change


class _Given(nn.Module):
    """In place of an affine: w is the style."""

    def forward(self, styles: Tensor, *, gain: float = 1.0) -> Tensor:
        return styles if gain == 1 else styles * gain


def _parts(block: SynthesisBlock) -> list[str]:
    return (["conv1"] if block.is_first else ["conv0", "conv1"]) + ["torgb"] * block.num_torgb


def _styles(inject: nn.Module, w: Tensor) -> Tensor:
    """[N, I], or [N, rows, I] of the rows that an injection with several vectors reads."""
    if w.ndim == 2:
        return inject.affine(w)
    rows = w[:, : inject.rows]
    return inject.affine(rows.flatten(0, 1)).unflatten(0, rows.shape[:2])


def _check(inject: nn.Module, name: str) -> None:
    if not inject.per_channel:
        kind = next(kind for kind, cls in STYLE_INJECTIONS.items() if type(inject) is cls)
        able = ", ".join(kind for kind, cls in STYLE_INJECTIONS.items() if cls.per_channel)
        raise UserError(
            f"layer {name} has the injection {kind}, which has no style per channel, so this generator "
            f"has no StyleSpace; explain one with {able}"
        )
