"""StyleGAN2 generator: mapping and synthesis (Karras et al. 2020, "Analyzing and Improving the Image Quality
of StyleGAN").

Matches the networks of NVlabs/stylegan2-ada-pytorch (d72cc7d) number for number: `imports/stylegan2_ada.py`
maps its weights onto these.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fact_metrics.base.image_size import ImageSize, Resolution
from fact_train.networks.injection import (
    FUSED_MODES,
    STYLE_INJECTIONS,
    ModulatedConv,
    StyleOptions,
    use_fused,
)
from fact_train.networks.mapping import CLASS_MAPPINGS, Mapping
from fact_train.networks.ops import (
    Conv2d,
    activate,
    activation_gain,
    upsample2d,
)

G_ARCHITECTURES = ("skip", "resnet", "orig")
NOISE_MODES = ("random", "const", "off")
TORGB_STYLES = ("all", "final", "none", "first")


def channels_at(resolution: int, *, channel_base: int, channel_max: int) -> int:
    """Feature maps at a resolution: channel_base / resolution, at most channel_max.

    Of rectangles the resolution is a level of `ImageSize`.
    """
    return min(channel_base // resolution, channel_max)


class SynthesisLayer(nn.Module):
    """3x3 convolution with style, noise of one strength, bias, and leaky ReLU times sqrt(2).

    The strength starts at `noise_strength_init` and is learned unless `noise_learned` is False.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        size: tuple[int, int],
        up: int,
        injection: str,
        use_noise: bool,
        conv_clamp: float | None,
        style: StyleOptions = StyleOptions(),
        noise_learned: bool = True,
        noise_strength_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.size, self.use_noise, self.conv_clamp = size, use_noise, conv_clamp  # size: height and width
        self.inject = STYLE_INJECTIONS[injection](
            in_channels, out_channels, 3, w_dim=w_dim, up=up, demodulate=True, style=style
        )
        self.bias = nn.Parameter(torch.zeros(out_channels))
        if use_noise:
            self.register_buffer("noise_const", torch.randn(size))
            strength = torch.full([], noise_strength_init)
            if noise_learned:
                self.noise_strength = nn.Parameter(strength)
            else:
                self.register_buffer("noise_strength", strength)

    def forward(
        self, x: Tensor, w: Tensor, noise: Tensor | None, *, fused: bool, gain: float = 1.0
    ) -> Tensor:
        total = gain * activation_gain("lrelu")
        x = self.inject(x, w, bias=self.bias * total, fused=fused, gain=total)
        if noise is not None:
            x = x.add_((noise * (self.noise_strength * total)).to(x.dtype))  # in place: a fresh tensor
        return activate(
            x, activation="lrelu", clamp=None if self.conv_clamp is None else self.conv_clamp * gain
        )


class ToRGB(nn.Module):
    """Style-injected 1x1 convolution to image channels, without demodulation.

    `injection` None is a plain convolution; `first_only` feeds the first style vector to a modulated one.
    """

    def __init__(
        self,
        in_channels: int,
        img_channels: int,
        *,
        w_dim: int,
        injection: str | None,
        conv_clamp: float | None,
        style: StyleOptions = StyleOptions(),
        first_only: bool = False,
    ) -> None:
        super().__init__()
        self.conv_clamp, self.first_only = conv_clamp, first_only
        if injection is None:
            self.conv = Conv2d(in_channels, img_channels, 1, conv_clamp=conv_clamp)
            return
        kind = ModulatedConv if first_only else STYLE_INJECTIONS[injection]
        self.inject = kind(in_channels, img_channels, 1, w_dim=w_dim, demodulate=False, style=style)
        self.bias = nn.Parameter(torch.zeros(img_channels))

    def forward(self, x: Tensor, w: Tensor, *, fused: bool) -> Tensor:
        if not hasattr(self, "inject"):
            return self.conv(x)
        w = w[:, 0] if self.first_only and w.ndim == 3 else w
        return activate(
            self.inject(x, w, bias=self.bias, fused=fused), activation="linear", clamp=self.conv_clamp
        )


class SynthesisBlock(nn.Module):
    """One resolution: the first block starts from a learned constant, the others double the size."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        size: tuple[int, int],
        img_channels: int,
        is_last: bool,
        architecture: str,
        torgb_style: str,
        layer: dict[str, Any],
    ) -> None:
        super().__init__()
        self.architecture, self.is_first = architecture, in_channels == 0
        layer = dict(size=size, **layer)
        if self.is_first:
            self.const = nn.Parameter(torch.randn(out_channels, *size))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, up=2, **layer)
        self.conv1 = SynthesisLayer(out_channels, out_channels, up=1, **layer)
        self.num_conv = 1 if self.is_first else 2
        self.num_torgb = int(is_last or architecture == "skip")
        if self.num_torgb:
            plain = torgb_style == "none" or (torgb_style == "final" and not is_last)
            self.torgb = ToRGB(
                out_channels,
                img_channels,
                w_dim=layer["w_dim"],
                injection=None if plain else layer["injection"],
                conv_clamp=layer["conv_clamp"],
                style=layer["style"],
                first_only=torgb_style == "first",
            )
        if architecture == "resnet" and not self.is_first:
            self.skip = Conv2d(in_channels, out_channels, 1, bias=False, up=2)

    def forward(
        self,
        x: Tensor | None,
        img: Tensor | None,
        ws: Sequence[Tensor],
        noise: Sequence[Tensor | None],
        *,
        fused: bool,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        if x is not None:
            x = x.to(dtype)
        if self.is_first:
            x = self.const.to(dtype).expand(ws[0].shape[0], -1, -1, -1)
            x = x.contiguous(memory_format=torch.channels_last)
            x = self.conv1(x, ws[0], noise[0], fused=fused)
        elif self.architecture == "resnet":
            y = self.skip(x, gain=math.sqrt(0.5))
            x = self.conv0(x, ws[0], noise[0], fused=fused)
            x = y + self.conv1(x, ws[1], noise[1], fused=fused, gain=math.sqrt(0.5))
        else:
            x = self.conv0(x, ws[0], noise[0], fused=fused)
            x = self.conv1(x, ws[1], noise[1], fused=fused)
        if img is not None:
            img = upsample2d(img)
        if self.num_torgb:
            y = self.torgb(x, ws[self.num_conv], fused=fused).float()
            img = y if img is None else img + y
        return x, img


class Synthesis(nn.Module):
    """Intermediate latents [N, num_ws * K, w_dim] to images [N, C, H, W], float32, about [-1, 1], unclamped.

    K is `style.style_vectors`; rows l K to l K + K - 1 form the style of layer l. `torgb_style` selects the
    ToRGB layers that get a style: all, final, none, or first (all of them, first vector only).
    """

    def __init__(
        self,
        *,
        w_dim: int,
        img_resolution: Resolution,
        img_channels: int,
        channel_base: int,
        channel_max: int,
        architecture: str = "skip",
        injection: str = "modconv",
        noise: str = "random",
        conv_clamp: float | None = None,
        fused_modconv: str = "eval",
        style: StyleOptions = StyleOptions(),
        torgb_style: str = "all",
        noise_learned: bool = True,
        noise_strength_init: float = 0.0,
    ) -> None:
        super().__init__()
        for value, known in (
            (architecture, G_ARCHITECTURES),
            (torgb_style, TORGB_STYLES),
            (noise, NOISE_MODES),
            (fused_modconv, FUSED_MODES),
        ):
            if value not in known:
                raise ValueError(f"{value!r} is none of {', '.join(known)}")
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.noise, self.fused_modconv, self.vectors = noise, fused_modconv, style.style_vectors
        size = ImageSize.of(img_resolution)
        self.resolutions = size.levels
        self.num_ws = 0
        previous = 0
        layer = dict(
            w_dim=w_dim,
            injection=injection,
            style=style,
            use_noise=noise != "off",
            noise_learned=noise_learned,
            noise_strength_init=noise_strength_init,
            conv_clamp=conv_clamp,
        )
        for res in self.resolutions:
            channels = channels_at(res, channel_base=channel_base, channel_max=channel_max)
            block = SynthesisBlock(
                previous,
                channels,
                size=size.at(res),
                img_channels=img_channels,
                is_last=res == self.resolutions[-1],
                architecture=architecture,
                torgb_style=torgb_style,
                layer=layer,
            )
            self.add_module(f"b{res}", block)
            self.num_ws += block.num_conv + (block.num_torgb if res == self.resolutions[-1] else 0)
            previous = channels

    @property
    def layers(self) -> list[SynthesisLayer]:
        """The noise-carrying layers from the base up."""
        blocks = [getattr(self, f"b{res}") for res in self.resolutions]
        return [layer for b in blocks for layer in ([b.conv1] if b.is_first else [b.conv0, b.conv1])]

    def styled_layers(self, ws: Tensor) -> list[tuple[str, nn.Module, Tensor]]:
        """Every layer with an injection: name, such as b8.conv0, and w [N, w_dim] or [N, K, w_dim]."""
        if self.vectors > 1:
            ws = ws.unflatten(1, (self.num_ws, self.vectors))
        layers, first = [], 0
        for res in self.resolutions:
            block = getattr(self, f"b{res}")
            names = ["conv1"] if block.is_first else ["conv0", "conv1"]
            for i, name in enumerate(names + ["torgb"] * block.num_torgb):
                module, w = getattr(block, name), ws[:, first + i]
                if hasattr(module, "inject"):
                    only = getattr(module, "first_only", False) and w.ndim == 3
                    layers.append((f"b{res}.{name}", module, w[:, 0] if only else w))
            first += block.num_conv
        return layers

    @property
    def noise_shapes(self) -> list[tuple[int, int]]:
        """(height, width) of every noise map, in layer order; empty where noise is off."""
        return [layer.size for layer in self.layers if layer.use_noise]

    def draw_noise(self, n: int, generator: torch.Generator | None) -> list[Tensor]:
        """Fresh N(0, 1) noise maps [n, 1, h, w], one per layer, on the generator's device."""
        device = generator.device if generator is not None else self.b4.const.device
        return [torch.randn(n, 1, h, w, generator=generator, device=device) for h, w in self.noise_shapes]

    def forward(
        self,
        ws: Tensor,
        noise_mode: str | None = None,
        noise_inputs: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
        fused_modconv: bool | None = None,
        dtype: torch.dtype | None = None,
        dtype_from: int = 4,
    ) -> Tensor:
        """`noise_mode` random | const | off (None: as trained); `noise_inputs` overrides it with given maps.

        `fused_modconv` None follows the setting of the network; True and False force one evaluation order.
        `dtype` is that of the feature maps from the resolution `dtype_from` on (None: of the weights, as all
        others); styles and images are float32 in any case.
        """
        ws = ws.float()
        if self.vectors > 1:
            ws = ws.reshape(-1, self.num_ws, self.vectors, ws.shape[2])
        fused = fused_modconv
        if fused is None:
            fused = use_fused(self.fused_modconv, training=self.training)
        noise = self._noise(ws, noise_mode or self.noise, noise_inputs, generator)
        own = self.b4.const.dtype
        x = img = None
        first_w = first_noise = 0
        layer_ws = ws.unbind(dim=1)  # at once: a slice for every block would each leave a gradient of all ws
        for res in self.resolutions:
            block = getattr(self, f"b{res}")
            block_ws = layer_ws[first_w : first_w + block.num_conv + block.num_torgb]
            block_noise = noise[first_noise : first_noise + block.num_conv]
            held = dtype if dtype and res >= dtype_from else own
            x, img = block(x, img, block_ws, block_noise, fused=fused, dtype=held)
            first_w += block.num_conv
            first_noise += block.num_conv
        return img

    def _noise(
        self, ws: Tensor, mode: str, given: Sequence[Tensor] | None, generator: torch.Generator | None
    ) -> Sequence[Tensor | None]:
        if mode not in NOISE_MODES:
            raise ValueError(f"noise_mode {mode!r} is none of {', '.join(NOISE_MODES)}")
        layers = self.layers
        if self.noise == "off" or (mode == "off" and given is None):
            return [None] * len(layers)
        if given is not None:
            if len(given) != len(layers):
                raise ValueError(f"{len(given)} noise inputs for {len(layers)} layers")
            return given
        if mode == "const":
            return [layer.noise_const for layer in layers]
        return [x.to(ws.device) for x in self.draw_noise(ws.shape[0], generator)]


class Generator(nn.Module):
    """Latents z [N, *z_shape] and one-hot labels c [N, c_dim] to images [N, C, H, W].

    c is None if c_dim is 0. With `class_dim` (StylEx), c is not a label but the last class_dim numbers of w,
    which `mapping_class` predicted ignores.
    `z_shape` is (z_dim,) unless a style has several vectors, or a layer its own.
    """

    def __init__(
        self,
        *,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: Resolution,
        img_channels: int,
        map_depth: int = 8,
        mapping_lr_mult: float = 0.01,
        class_dim: int = 0,
        mapping_class: str = "given",
        latent_space: str = "w",
        latent_norm: str = "row",
        latent_div_sqrt: bool = False,
        **synthesis,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, class_dim or c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.synthesis = Synthesis(
            w_dim=w_dim + class_dim, img_resolution=img_resolution, img_channels=img_channels, **synthesis
        )
        self.num_ws = self.synthesis.num_ws
        shape = dict(
            z_dim=z_dim,
            w_dim=w_dim,
            num_ws=self.num_ws,
            depth=map_depth,
            lr_mult=mapping_lr_mult,
            vectors=self.synthesis.vectors,
            space=latent_space,
            norm=latent_norm,
            div_sqrt=latent_div_sqrt,
        )
        if class_dim:
            self.mapping = CLASS_MAPPINGS[mapping_class](class_dim=class_dim, **shape)
        else:
            self.mapping = Mapping(c_dim=c_dim, **shape)
        self.to(memory_format=torch.channels_last)

    @property
    def z_shape(self) -> tuple[int, ...]:
        """Shape of one latent z."""
        return self.mapping.z_shape

    def forward(
        self, z: Tensor, c: Tensor | None = None, truncation_psi: float = 1.0, **synthesis_options
    ) -> Tensor:
        return self.synthesis(self.mapping(z, c, truncation_psi), **synthesis_options)
