"""Fields of TrainConfig about StylEx."""

from dataclasses import dataclass
from typing import Literal

from fact_train.settings.fields import NOT_NEGATIVE, POSITIVE, SHARE, setting


@dataclass(frozen=True)
class StylExFields:
    """Panel StylEx: rejected if the model is stylegan2, unless left at their defaults."""

    # fmt: off
    model: Literal["stylegan2", "stylex"] = setting("stylegan2",
        "stylex also trains an encoder, and explains a classifier.", panel="StylEx", source="StylEx")
    classifier: str | None = setting(None,
        "The classifier to explain: mnist, mnist-8-9, mnist-8, or a file of fact-train classifier.",
        panel="StylEx", source="StylEx", metavar="NAME|PATH")
    class_repr: Literal["softmax", "logits"] = setting("softmax",
        "What the classifier adds to w: probabilities or logits.", panel="StylEx", source="StylEx study")
    class_scale: float = setting(1.0,
        "Factor on the class part of w. Logits of the bundled digits have a deviation of about 5.",
        panel="StylEx", source="this project", bounds=POSITIVE)
    mapping_class: Literal["given", "predicted"] = setting("given",
        "Class part of the mapping's w: given, that of a training image, or predicted by the mapping itself.",
        panel="StylEx", source="StylEx study")
    class_dropout: float = setting(0.0,
        "Probability that an image's class part is 0 in training, for both branches.",
        panel="StylEx", source="this project", bounds=SHARE)
    class_noise: float = setting(0.0,
        "Standard deviation of Gaussian noise on the class part in training, for both branches.",
        panel="StylEx", source="this project", bounds=NOT_NEGATIVE)
    w_noise: float = setting(0.0,
        "Standard deviation of Gaussian noise on the w that the encoder gives G in training.",
        panel="StylEx", source="this project", bounds=NOT_NEGATIVE)
    d_cond: Literal["off", "projection", "weighted"] = setting("off",
        "Show D the class probabilities: by a projection, or as the weights of one score per class.",
        panel="StylEx", source="StylEx study")
    branches: Literal["both", "encoder", "mapping"] = setting("both",
        "Whose images D scores: those of the encoder, of the mapping network, or of both.",
        panel="StylEx", source="StylEx study")
    alternation: Literal["off", "step", "microbatch", "probability"] = setting("step",
        "How encoder and mapping take turns: by step, by micro-batch, or at random. off gives each half of "
        "every micro-batch.",
        panel="StylEx", source="StylEx study")
    encoder_prob: float | None = setting(None,
        "Probability of an encoder turn with --alternation probability.",
        panel="StylEx", source="this project", bounds=SHARE)
    compensation: bool = setting(False,
        "Divide the reconstruction and KL losses by the share of encoder turns: a share of 1/2 doubles them.",
        panel="StylEx", source="StylEx study")
    rec_in_d_phase: bool = setting(False,
        "Train reconstruction and KL in a separate step of G and the encoder, after the step of D.",
        panel="StylEx", source="StylEx study")
    rec_in_g_phase: bool = setting(True,
        "Train reconstruction and KL in the step of G, together with the adversarial loss.",
        panel="StylEx", source="StylEx study")
    encoder_adversarial: bool = setting(True,
        "Let D's scores of the encoder's images train the encoder as well as G. Off, they train G alone.",
        panel="StylEx", source="VAE/GAN")
    encoder_lr_mult: float = setting(1.0, "Learning rate of the encoder, relative to --g-lr.",
        panel="StylEx", source="StylEx study", bounds=POSITIVE)
    encoder_init: Literal["random", "standardised"] = setting("random",
        "standardised rescales the untrained encoder: w of 256 real images then has mean 0, deviation 1.",
        panel="StylEx", source="this project")
    e_channel_mult: float = setting(1.0, "Width of the encoder, relative to the generator's.",
        panel="StylEx", source="this project", bounds=POSITIVE)
    e_channel_max: int | None = setting(None,
        "Upper limit on the feature maps of an encoder layer. none is --channel-max times --e-channel-mult.",
        panel="StylEx", source="StylEx study", bounds=POSITIVE)
    rec_scale: float = setting(1.0, "Weight of the sum of all reconstruction losses. 0 switches them off.",
        panel="StylEx", source="StylEx study", bounds=NOT_NEGATIVE)
    w_lpips: float = setting(0.1, "Weight of the perceptual distance. 0 switches it off.",
        panel="StylEx", source="StylEx", bounds=NOT_NEGATIVE)
    w_w: float = setting(0.1, "Weight of |E(x) - E(G(w))|. 0 switches it off.",
        panel="StylEx", source="StylEx", bounds=NOT_NEGATIVE)
    w_l1: float = setting(1.0, "Weight of |x - G(w)|, for images in [-1, 1]. 0 switches it off.",
        panel="StylEx", source="StylEx", bounds=NOT_NEGATIVE)
    w_l2: float = setting(0.0, "Weight of (x - G(w))^2, for images in [-1, 1]. 0 switches it off.",
        panel="StylEx", source="this project", bounds=NOT_NEGATIVE)
    w_latent: float = setting(0.0,
        "Weight of |w - E(G(w))| in G's step, for the mapping's images. 0 switches it off.",
        panel="StylEx", source="ALAE", bounds=NOT_NEGATIVE)
    perceptual: str = setting("stlpips_alex",
        "Detector of the perceptual distance; see fact-eval list.",
        panel="StylEx", source="this project", metavar="DETECTOR")
    rec_interval: int = setting(1,
        "Train reconstruction and KL every this many encoder turns, with their weights multiplied by it.",
        panel="StylEx", source="this project", bounds=POSITIVE)
    lpips_interval: int = setting(1,
        "Use the perceptual distance every this many reconstructions, with its weight multiplied by it.",
        panel="StylEx", source="this project", bounds=POSITIVE)
    lpips_stretch: bool = setting(False,
        "Stretch each image to [-1, 1] before the perceptual distance, so that contrast does not count.",
        panel="StylEx", source="StylEx study")
    lpips_batch_shrink: int = setting(1,
        "The perceptual distance uses the images of a micro-batch divided by this number.",
        panel="StylEx", source="this project", bounds=POSITIVE)
    kl_scale: float = setting(1.0,
        "Weight of KL(C(x) || C(G(w))) for the classifier C. 0 switches it off.",
        panel="StylEx", source="StylEx", bounds=NOT_NEGATIVE)
    kl_branches: Literal["encoder", "both"] = setting("encoder",
        "Images that the KL loss trains: reconstructions only, or also images of the mapping network.",
        panel="StylEx", source="this project")
    # fmt: on
