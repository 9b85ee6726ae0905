"""StyleGAN2 discriminator: residual, skip or plain trunk, minibatch standard deviation, optional label
projection.

Karras et al. 2020 ("Analyzing and Improving the Image Quality of StyleGAN", sec. 4.1) for the trunks, Karras
et al. 2018 (sec. 3) for the minibatch statistic, Miyato & Koyama 2018 for the projection. Matches the network
of NVlabs/stylegan2-ada-pytorch (d72cc7d) number for number.
"""

import math

import torch
from torch import Tensor, nn

from fact_metrics.base.image_size import ImageSize, Resolution
from fact_train.networks.generator import channels_at
from fact_train.networks.mapping import Mapping
from fact_train.networks.ops import Conv2d, FullyConnected, downsample2d

D_ARCHITECTURES = ("resnet", "skip", "orig")
CONDITIONINGS = ("projection", "weighted")


def minibatch_std(x: Tensor, *, group_size: int, num_channels: int = 1, parts: int = 1) -> Tensor:
    """Append `num_channels` maps: the standard deviation over groups of samples, averaged over features and
    pixels.

    x is [N, C, H, W]; the group holds samples n, n + N/g, n + 2N/g ... with g = min(group_size, N), which
    must divide N. Where x holds `parts` batches one after the other, each has groups of its own.
    """
    n, c, h, w = x.shape
    n //= parts
    g = min(group_size, n)
    if n % g:
        raise ValueError(
            f"a batch of {n} cannot be split into minibatch-std groups of {g}; "
            "choose mbstd_group_size to divide it"
        )
    y = x.reshape(parts, g, n // g, num_channels, c // num_channels, h, w)
    y = y - y.mean(dim=1, keepdim=True)
    y = (y.square().mean(dim=1) + 1e-8).sqrt().mean(dim=[3, 4, 5])
    y = y.reshape(parts, 1, n // g, num_channels, 1, 1).expand(-1, g, -1, -1, h, w)
    return torch.cat([x, y.reshape(parts * n, num_channels, h, w)], dim=1)


class DiscriminatorBlock(nn.Module):
    """One halving of the resolution; reads the image where it is the first block or the trunk is `skip`."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int,
        *,
        img_channels: int,
        architecture: str,
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.reads_image = in_channels == 0 or architecture == "skip"
        act = dict(activation="lrelu", conv_clamp=conv_clamp)
        if self.reads_image:
            self.fromrgb = Conv2d(img_channels, channels, 1, **act)
        self.conv0 = Conv2d(channels, channels, 3, **act)
        self.conv1 = Conv2d(channels, out_channels, 3, down=2, **act)
        if architecture == "resnet":
            self.skip = Conv2d(channels, out_channels, 1, bias=False, down=2)

    def forward(
        self, x: Tensor | None, img: Tensor | None, *, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None]:
        if x is not None:
            x = x.to(dtype)
        if self.reads_image:
            y = self.fromrgb(img.to(dtype))
            x = y if x is None else x + y
            img = downsample2d(img) if self.architecture == "skip" else None
        if self.architecture == "resnet":
            y = self.skip(x, gain=math.sqrt(0.5))
            x = y.add_(self.conv1(self.conv0(x), gain=math.sqrt(0.5)))  # in place: y is fresh
        else:
            x = self.conv1(self.conv0(x))
        return x, img


class DiscriminatorEpilogue(nn.Module):
    """Features of the base size (4x4 of squares) to scores: minibatch standard deviation, 3x3 convolution,
    two linear layers.
    """

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        *,
        size: tuple[int, int],
        img_channels: int,
        architecture: str,
        mbstd_group_size: int,
        mbstd_num_channels: int,
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.mbstd_group_size, self.mbstd_num_channels = mbstd_group_size, mbstd_num_channels
        if architecture == "skip":
            self.fromrgb = Conv2d(img_channels, in_channels, 1, activation="lrelu")
        self.conv = Conv2d(
            in_channels + mbstd_num_channels, in_channels, 3, activation="lrelu", conv_clamp=conv_clamp
        )
        self.fc = FullyConnected(in_channels * math.prod(size), in_channels, activation="lrelu")
        self.out = FullyConnected(in_channels, out_features)

    def forward(self, x: Tensor, img: Tensor | None, *, parts: int) -> Tensor:
        x = x.float()
        if self.architecture == "skip":
            x = x + self.fromrgb(img.float())
        if self.mbstd_num_channels:
            x = minibatch_std(
                x, group_size=self.mbstd_group_size, num_channels=self.mbstd_num_channels, parts=parts
            )
        return self.out(self.fc(self.conv(x).flatten(1)))


class Discriminator(nn.Module):
    """Images [N, C, H, W] (and one-hot labels or probabilities [N, c_dim]) to scores [N, 1]; higher means
    more real.

    `conditioning` projection: the last features meet an embedding of c; weighted: a score per class, summed
    with c as weights.
    """

    def __init__(
        self,
        *,
        c_dim: int,
        img_resolution: Resolution,
        img_channels: int,
        channel_base: int,
        channel_max: int,
        architecture: str = "resnet",
        cmap_dim: int | None = None,
        cmap_depth: int = 8,
        mbstd_group_size: int = 4,
        mbstd_num_channels: int = 1,
        conv_clamp: float | None = None,
        conditioning: str = "projection",
        out_features: int = 1,
    ) -> None:
        super().__init__()
        for value, known in ((architecture, D_ARCHITECTURES), (conditioning, CONDITIONINGS)):
            if value not in known:
                raise ValueError(f"{value!r} is none of {', '.join(known)}")
        self.c_dim, self.img_resolution, self.img_channels = c_dim, img_resolution, img_channels
        size = ImageSize.of(img_resolution)
        *smaller, last = size.levels
        self.resolutions = [last, *smaller[:0:-1]]
        width = {
            res: channels_at(res, channel_base=channel_base, channel_max=channel_max)
            for res in [*self.resolutions, 4]
        }
        shared = dict(img_channels=img_channels, architecture=architecture, conv_clamp=conv_clamp)
        for res in self.resolutions:
            first = res == last
            self.add_module(
                f"b{res}",
                DiscriminatorBlock(0 if first else width[res], width[res], width[res // 2], **shared),
            )
        self.projects = bool(c_dim) and conditioning == "projection"
        self.cmap_dim = (width[4] if cmap_dim is None else cmap_dim) if self.projects else 0
        if self.projects:
            self.mapping = Mapping(z_dim=0, c_dim=c_dim, w_dim=self.cmap_dim, num_ws=None, depth=cmap_depth)
        self.b4 = DiscriminatorEpilogue(
            width[4],
            self.cmap_dim or c_dim or out_features,
            size=size.base,
            mbstd_group_size=mbstd_group_size,
            mbstd_num_channels=mbstd_num_channels,
            **shared,
        )
        self.to(memory_format=torch.channels_last)

    @property
    def layers(self) -> list[nn.Module]:
        """The layers before the 4x4 block, from the image on, as --freeze-d counts them."""
        blocks = [getattr(self, f"b{res}") for res in self.resolutions]
        names = ("fromrgb", "conv0", "conv1", "skip")
        return [getattr(block, name) for block in blocks for name in names if hasattr(block, name)]

    def parameters_after(self, frozen: int) -> list[nn.Parameter]:
        """All parameters but those of the first `frozen` layers. ValueError where there are fewer layers."""
        layers = self.layers
        if frozen > len(layers):
            raise ValueError(f"D has {len(layers)} layers before its 4x4 block")
        held = {id(p) for layer in layers[:frozen] for p in layer.parameters()}
        return [p for p in self.parameters() if id(p) not in held]

    def forward(
        self,
        img: Tensor,
        c: Tensor | None = None,
        *,
        parts: int = 1,
        dtype: torch.dtype | None = None,
        dtype_from: int = 4,
    ) -> Tensor:
        """`parts` > 1: the images are so many batches in a row, judged as if each had come alone.

        `dtype` is that of the feature maps down to the resolution `dtype_from` (None: of the weights, as all
        below). At 4x4, float32 takes over.
        """
        own = self.b4.out.weight.dtype
        x = None
        for res in self.resolutions:
            held = dtype if dtype and res >= dtype_from else own
            x, img = getattr(self, f"b{res}")(x, img, dtype=held)
        x = self.b4(x, img, parts=parts)
        if self.projects:
            return (x * self.mapping(None, c)).sum(dim=1, keepdim=True) * (1.0 / math.sqrt(self.cmap_dim))
        return (x * c).sum(dim=1, keepdim=True) if self.c_dim else x
