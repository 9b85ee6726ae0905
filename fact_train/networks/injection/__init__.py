"""How a style enters a convolution. One class per way, one interface, one table: STYLE_INJECTIONS.

Every class is built with (in_channels, out_channels, kernel_size, *, w_dim, up, demodulate, style) and called
with (x, w, *, bias, fused, gain): x [N, I, H, W] and w [N, w_dim], or [N, K, w_dim] with K style vectors, to
[N, O, H', W'] before the activation. `demodulate` False is the form for ToRGB. Two orders of evaluation give
the same function. `fused` applies the style to weights per sample (for a style matrix: bakes it). The unfused
order applies it to the activations and shares the weights. Both have full gradients. `kernels(w)` returns
the fused weights, which `fact-train bake` writes out. `per_channel` says whether the style is one number per
input channel (and row, and shift), as StyleSpace needs it.

    modconv   s_i W_oik, demodulated (Karras et al. 2020)
    adain     normalise, scale and shift the input (Huang & Belongie 2017; Karras et al. 2019)
    vectors   W_oik S_(o mod K)i, demodulated: K style vectors
    matrix    a convolution by a style matrix M, then by W
    adaconv   predicted grouped and pointwise convolutions of the normalised input (Chandran et al. 2021)
"""

from fact_train.networks.injection.adaconv import AdaptiveConv
from fact_train.networks.injection.adain import AdaIN
from fact_train.networks.injection.known_input import KnownInput
from fact_train.networks.injection.matrix import StyleMatrix
from fact_train.networks.injection.modconv import ModulatedConv
from fact_train.networks.injection.options import FUSED_MODES, StyleOptions, use_fused
from fact_train.networks.injection.plain import PlainConv
from fact_train.networks.injection.vectors import StyleVectors

STYLE_INJECTIONS = {
    "modconv": ModulatedConv,
    "adain": AdaIN,
    "vectors": StyleVectors,
    "matrix": StyleMatrix,
    "adaconv": AdaptiveConv,
}

__all__ = [
    "FUSED_MODES",
    "STYLE_INJECTIONS",
    "AdaIN",
    "AdaptiveConv",
    "KnownInput",
    "ModulatedConv",
    "PlainConv",
    "StyleMatrix",
    "StyleOptions",
    "StyleVectors",
    "use_fused",
]
