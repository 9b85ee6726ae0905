"""StylEx's encoder: the discriminator's trunk without minibatch standard deviation, ending in w.

Lang et al. 2021, arXiv:2104.13369. A statistic of the batch would make the code of an image depend on the
images beside it.
"""

import torch
from torch import Tensor, nn

from fact_train.networks.discriminator import Discriminator
from fact_train.networks.mapping import join_class_part

SMALLEST_STD = 1e-4


class Encoder(Discriminator):
    """Images [N, C, H, W] in about [-1, 1] to their part of w, [N, w_dim]; the class part is C's."""

    def __init__(self, *, w_dim: int, **trunk) -> None:
        super().__init__(c_dim=0, mbstd_num_channels=0, out_features=w_dim, **trunk)
        self.w_dim = w_dim

    @torch.no_grad()
    def standardise_(self, images: Tensor) -> None:
        """Set the last layer so that w of these images has mean 0 and deviation 1 in every dimension.

        A new trunk gives nearly the same w to all images (deviation 0.05 on MNIST, the mapping's is about
        1), which a generator first learns to ignore. Data-dependent initialisation: Salimans & Kingma 2016,
        arXiv:1602.07868, sec. 3.
        """
        w = self(images)
        mean, std = w.mean(dim=0), w.std(dim=0).clamp(min=SMALLEST_STD)
        out = self.b4.out
        out.weight.div_(std[:, None])
        out.bias.sub_(mean / out.bias_gain).div_(std)


def encoder_ws(w: Tensor, class_parts: Tensor, *, num_ws: int) -> Tensor:
    """E's part of w [N, w_dim] and class parts [N, K] to ws [N, num_ws, w_dim + K], equal for every layer."""
    return join_class_part(w.unsqueeze(1).expand(-1, num_ws, -1), class_parts)


@torch.no_grad()
def reconstruct(G: nn.Module, E: nn.Module, images: Tensor, class_parts: Tensor) -> Tensor:
    """G([E(x), c]) of images x [N, C, H, W] in [-1, 1] and class parts c [N, K], in the shape of x.

    The noise maps are the constant ones, and w is not truncated.
    """
    return G.synthesis(encoder_ws(E(images), class_parts, num_ws=G.num_ws), noise_mode="const")
