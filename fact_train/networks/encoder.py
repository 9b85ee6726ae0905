"""StylEx's encoder: the discriminator's trunk without minibatch standard deviation, ending in w.

Lang et al. 2021, arXiv:2104.13369. A statistic of the batch would make the code of an image depend on the
images beside it.
"""

from fact_train.networks.discriminator import Discriminator


class Encoder(Discriminator):
    """Images [N, C, R, R] in about [-1, 1] to their part of w, [N, w_dim]; the class part is C's."""

    def __init__(self, *, w_dim: int, **trunk) -> None:
        super().__init__(c_dim=0, mbstd_num_channels=0, out_features=w_dim, **trunk)
        self.w_dim = w_dim
