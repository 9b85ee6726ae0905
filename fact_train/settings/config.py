"""TrainConfig: one field = one flag = one --help line = one entry of --list-axes = one recorded value.

`scope` says what a field may change: `science` fields define the experiment (hashed, never changed on
resume); `schedule` fields say how far and how often (a run can be continued with other values); `machine`
fields say where. `panel` is the heading under which `--help` and `--list-axes` show the field; the order of
the fields is the order in which runs record them, and does not change.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from fact_metrics.base.errors import UsageError
from fact_train.settings.checks import find_problem
from fact_train.settings.fields import (
    MEAN_SIGN,
    NOT_NEGATIVE,
    NOT_ZERO,
    POSITIVE,
    PROBABILITY_ABOVE_0,
    SHARE,
    fit,
    setting,
    value_text,
)

# The fields of the first published runs. A later one counts in the hash where it is not at its default, so
# that adding a field renames no earlier run; the default of such a field can never change.
_FIRST_FIELDS = frozenset(
    """data resolution resize crop channels alpha max_images mirror cond z_dim w_dim map_depth mapping_lr_mult
    injection g_arch noise fused_modconv d_arch mbstd_group_size channel_base channel_max d_channel_mult
    conv_clamp r1_gamma r1_gamma_final r1_decay_kimg r1_interval pl_weight pl_interval pl_batch_shrink
    pl_decay style_mixing_prob updates batch batch_gpu precision g_lr d_lr beta1 beta2 ema_kimg
    ema_rampup""".split()
)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run. Defaults are StyleGAN2's published ones where there are any."""

    # fmt: off
    data: str = setting("mnist",
        "Training images: the name mnist, or the path of an image folder, zip, tar, npz or idx folder.",
        panel="Data", source="this project", metavar="NAME|PATH")
    resolution: int | None = setting(None,
        "Side of the training images in pixels, a power of two from 4. none keeps the size of the files.",
        panel="Data", source="StyleGAN2-ADA", bounds=POSITIVE)
    resize: str = setting("lanczos",
        "Filter that resizes images of another size. none rejects them.",
        panel="Data", source="StyleGAN2-ADA",
        choices=("lanczos", "box", "bicubic", "bilinear", "hamming", "nearest", "none"))
    crop: str = setting("none",
        "How non-square images become square: cut to the centre, or padded with zeros. none rejects them.",
        panel="Data", source="StyleGAN2-ADA", choices=("none", "center", "pad"))
    channels: Literal[1, 3] | None = setting(None,
        "Colour channels: 1 is gray, 3 is RGB. none takes 1 if all images are gray, otherwise 3.",
        panel="Data", source="this project")
    alpha: Literal["refuse", "white", "black"] = setting("refuse",
        "Background behind transparent images. refuse rejects them.", panel="Data", source="this project")
    max_images: int | None = setting(None,
        "Train on a random subset of this size, drawn by --seed. none trains on all images.",
        panel="Data", source="StyleGAN2-ADA", bounds=POSITIVE)
    mirror: bool = setting(False,
        "Flip each training image left-right with probability 1/2.", panel="Data", source="StyleGAN2-ADA")
    cond: bool = setting(False,
        "Condition G and D on the labels of the dataset. D uses a projection.",
        panel="Data", source="projection discriminator")

    z_dim: int = setting(512, "Dimensions of the latent z.",
        panel="Generator", source="StyleGAN", bounds=POSITIVE)
    w_dim: int = setting(512, "Dimensions of the intermediate latent w.",
        panel="Generator", source="StyleGAN", bounds=POSITIVE)
    map_depth: int = setting(8, "Layers of the mapping network from z to w.",
        panel="Generator", source="StyleGAN", bounds=POSITIVE)
    mapping_lr_mult: float = setting(0.01,
        "Learning rate of the mapping network, relative to --g-lr.",
        panel="Generator", source="StyleGAN", bounds=POSITIVE)
    train_mapping: bool = setting(True,
        "Train the mapping network. Off leaves it at its random initialisation.",
        panel="Generator", source="style experiments",
        reported="Training it helps a little at a small R1 weight.")
    latent_space: Literal["w", "w_plus"] = setting("w",
        "w draws one latent for all layers. w_plus draws one per layer, in training and evaluation.",
        panel="Generator", source="style experiments",
        reported="w_plus never worked with several style vectors: the code repeated the latents.")
    g_arch: Literal["skip", "resnet", "orig"] = setting("skip",
        "Generator trunk: RGB skip connections, residual blocks, or neither.",
        panel="Generator", source="StyleGAN2",
        reported="skip and resnet both train.")
    noise: Literal["off", "const", "random"] = setting("random",
        "Per-pixel noise inputs of the generator: none, fixed images, or new ones for each sample.",
        panel="Generator", source="StyleGAN",
        reported="At R1 weight 10 the network first ignores the style and varies by noise alone. An R1 "
        "weight of 100 does not change that.")
    fused_modconv: Literal["train", "eval", "never", "always"] = setting("eval",
        "When styles modulate the weights (fused) and not the activations. A fused style matrix is baked "
        "into the weights.",
        panel="Generator", source="StyleGAN2-ADA")
    noise_learned: bool = setting(True, "Learn the noise strength of each layer.",
        panel="Generator", source="StyleGAN")
    noise_strength_init: float = setting(0.0, "Noise strength of each layer before training.",
        panel="Generator", source="StyleGAN", bounds=NOT_NEGATIVE)

    injection: Literal["modconv", "adain", "vectors", "matrix", "adaconv"] = setting("modconv",
        "How styles enter a convolution. modconv: StyleGAN2's modulation. adain: StyleGAN's instance "
        "normalisation. vectors: K style vectors. matrix: a convolution by a style matrix. adaconv: "
        "predicted kernels.",
        panel="Style injection", source="Overparameterized StyleGAN")
    style_vectors: int = setting(1,
        "K, the number of style vectors of a layer. Each is mapped from its own z.",
        panel="Style injection", source="Overparameterized StyleGAN", bounds=POSITIVE,
        reported="1, 2, 4, 8, 16 and 512 were tried. At R1 weight 0.0032 up to 16 train, slowly and with "
        "artefacts. At R1 weight 10, 512 train.")
    style_amplify: float = setting(1.0,
        "Contrast c of the style S: S becomes 1 + c (S - 1).",
        panel="Style injection", source="style experiments", bounds=NOT_ZERO,
        reported="1, sqrt(512), K and 1/K were tried. Amplifying helps at a small R1 weight, but few "
        "distinct images remain.")
    affine_lr_mult: float = setting(1.0,
        "Learning rate of the affine layers from w to styles, relative to --g-lr.",
        panel="Style injection", source="style experiments", bounds=POSITIVE,
        reported="Later training scripts at 256 px use 1/100; 1 and 1/226 also occur.")
    affine_bias_init: float = setting(1.0,
        "Initial bias of the affine layers: the style at w = 0 before training.",
        panel="Style injection", source="StyleGAN2",
        reported="Later training scripts at 256 px use 1; 0 also occurs.")
    latent_norm: Literal["row", "joint"] = setting("row",
        "Normalise each of the K rows of z by itself, or all rows as one vector.",
        panel="Style injection", source="style experiments",
        reported="Later training scripts at 256 px use joint.")
    latent_div_sqrt: bool = setting(False,
        "Divide the normalised z by sqrt(K).", panel="Style injection", source="style experiments")
    torgb_style: Literal["all", "final", "none", "first"] = setting("all",
        "ToRGB layers that have a style: all, only the last, or none. first: all, with one of the K vectors.",
        panel="Style injection", source="style experiments",
        reported="Style in all of them trains and gives more variety of hue early on.")
    style_kernel: Literal[1, 3] = setting(1,
        "Side of the kernel that a style matrix or adaconv predicts.",
        panel="Style injection", source="AdaConv")
    matrix_centre: bool = setting(False,
        "Style matrix, first step: subtract 1, the initial bias of the affine layers.",
        panel="Style injection", source="style experiments")
    matrix_normalise: bool = setting(False,
        "Style matrix, second step: scale each row to length 1.",
        panel="Style injection", source="style experiments",
        reported="Does not train with normalised rows; trains without.")
    matrix_scale: float | Literal["sqrt", "rsqrt"] = setting(1.0,
        "Style matrix, third step: multiply by this factor. sqrt and rsqrt are sqrt(I) and 1/sqrt(I) for I "
        "channels.",
        panel="Style injection", source="style experiments", bounds=NOT_ZERO,
        reported="sqrt converges more slowly. rsqrt gives slightly the best images.")
    matrix_identity: bool = setting(False,
        "Style matrix, last step: add the identity.", panel="Style injection", source="style experiments",
        reported="Negligibly better without a scale.")
    matrix_postnorm: Literal["none", "weight", "composite", "instance"] = setting("composite",
        "What follows a style matrix: nothing, demodulation of the layer's weights, demodulation of their "
        "product with the matrix, or instance normalisation of the output.",
        panel="Style injection", source="style experiments",
        reported="Instance normalisation and demodulated styles fail.")
    adaconv_groups: int = setting(4, "Groups of the kernels that adaconv predicts.",
        panel="Style injection", source="AdaConv", bounds=POSITIVE)

    d_arch: Literal["resnet", "skip", "orig"] = setting("resnet",
        "Trunk of the discriminator and the encoder: residual blocks, RGB skip connections, or neither.",
        panel="Discriminator", source="StyleGAN2")
    mbstd_group_size: int = setting(4,
        "Images over which the minibatch standard deviation is taken. A group of 1 has no effect.",
        panel="Discriminator", source="Progressive GAN", bounds=POSITIVE)
    channel_base: int = setting(32768,
        "Width of the generator: the feature maps of a layer are this number divided by its resolution.",
        panel="Generator", source="StyleGAN2-ADA", bounds=POSITIVE)
    channel_max: int = setting(512, "Upper limit on the feature maps of a layer.",
        panel="Generator", source="StyleGAN2-ADA", bounds=POSITIVE)
    d_channel_mult: float = setting(1.0,
        "Width of the discriminator, relative to the generator's.",
        panel="Discriminator", source="this project", bounds=POSITIVE)
    conv_clamp: float | None = setting(None,
        "Clamp the activations of convolutions to this absolute value. none switches clamping off.",
        panel="Precision", source="StyleGAN2-ADA", bounds=POSITIVE)

    r1_gamma: float | Literal["auto"] = setting(10.0,
        "Weight of the R1 penalty. 0 switches it off; auto is 0.0002 * resolution^2 / batch.",
        panel="Losses and regularisation", source="R1", bounds=NOT_NEGATIVE,
        reported="auto (0.0032 at 32 px) and 1 fail with several style vectors; 10 works.")
    r1_gamma_final: float | None = setting(None,
        "Weight that R1 reaches geometrically within --r1-decay-kimg. none keeps --r1-gamma.",
        panel="Losses and regularisation", source="R3GAN", bounds=POSITIVE)
    r1_decay_kimg: float = setting(50.0, "Thousand images until R1 reaches --r1-gamma-final.",
        panel="Losses and regularisation", source="R3GAN", bounds=POSITIVE)
    r1_interval: int = setting(16,
        "Apply R1 every this many steps, with its weight multiplied by the same number.",
        panel="Losses and regularisation", source="StyleGAN2", bounds=POSITIVE)
    pl_weight: float = setting(2.0, "Weight of the path-length penalty. 0 switches it off.",
        panel="Losses and regularisation", source="StyleGAN2", bounds=NOT_NEGATIVE,
        reported="0 and 2 were tried; both train.")
    pl_power: float = setting(0.5,
        "Multiply path lengths by K to this power, for K style vectors.",
        panel="Losses and regularisation", source="style experiments",
        reported="0 and 0.5 were tried. At 0 path lengths fall with sqrt(K).")
    pl_interval: int = setting(4,
        "Apply the path-length penalty every this many steps, with its weight multiplied by the same number.",
        panel="Losses and regularisation", source="StyleGAN2", bounds=POSITIVE)
    pl_batch_shrink: int = setting(2,
        "The path-length penalty uses the batch divided by this number.",
        panel="Losses and regularisation", source="StyleGAN2-ADA", bounds=POSITIVE)
    pl_decay: float = setting(0.01,
        "Weight of the newest batch in the moving average of path lengths.",
        panel="Losses and regularisation", source="StyleGAN2", bounds=SHARE)
    style_mixing_prob: float = setting(0.9,
        "Probability that a sample mixes two latents, with the cut between two layers.",
        panel="Losses and regularisation", source="StyleGAN", bounds=SHARE)
    d_loss_scale: float = setting(1.0,
        "Factor of the discriminator's adversarial loss. R1 is not scaled.",
        panel="Losses and regularisation", source="StylEx study", bounds=POSITIVE)

    augment: Literal["none", "ada", "fixed", "diffaugment"] = setting("none",
        "Augmentation of the images that D sees: adaptive (ADA), with a fixed probability, or DiffAugment.",
        panel="Augmentation", source="StyleGAN2-ADA")
    augment_set: Literal[
        "blit", "geom", "color", "filter", "noise", "cutout", "bg", "bgc", "bgcf", "bgcfn", "bgcfnc"
    ] = setting("bgc",
        "Transformations of ada and fixed. The short names join initials: bgc is blit, geom and color.",
        panel="Augmentation", source="StyleGAN2-ADA")
    augment_p: float = setting(0.0,
        "Probability of each transformation: constant with fixed, the initial value with ada.",
        panel="Augmentation", source="StyleGAN2-ADA", bounds=SHARE)
    ada_target: float = setting(0.6,
        "Overfitting that ada keeps: the mean sign of D on real images.",
        panel="Augmentation", source="StyleGAN2-ADA", bounds=MEAN_SIGN)
    ada_interval: int = setting(4, "ada adjusts its probability every this many steps.",
        panel="Augmentation", source="StyleGAN2-ADA", bounds=POSITIVE)
    ada_kimg: float = setting(500.0,
        "Thousand images in which ada can raise its probability from 0 to 1.",
        panel="Augmentation", source="StyleGAN2-ADA", bounds=POSITIVE)
    ada_ceiling: float | None = setting(None,
        "Largest probability of ada. none sets no limit.",
        panel="Augmentation", source="this project", bounds=PROBABILITY_ABOVE_0)
    diffaugment_policy: str = setting("color,translation,cutout",
        "Transformations of diffaugment: any of color, translation and cutout, in this order.",
        panel="Augmentation", source="DiffAugment", metavar="NAME[,NAME...]")

    updates: Literal["alternating", "simultaneous"] = setting("alternating",
        "alternating trains D against the G just updated. simultaneous computes both from the same "
        "weights, in parallel on a CPU.",
        panel="Optimiser", source="this project")
    batch: int = setting(32, "Images per step, over all processes.",
        panel="Optimiser", source="StyleGAN2-ADA", bounds=POSITIVE,
        reported="4 works, no faster per image than 8.")
    batch_gpu: int | None = setting(None,
        "Images of a micro-batch; gradients accumulate over micro-batches, in parallel on a CPU. none takes "
        "all images of a process at once.",
        panel="Optimiser", source="StyleGAN2-ADA", bounds=POSITIVE)
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = setting("fp32",
        "Precision of feature maps in training. Weights, styles and images stay fp32.",
        panel="Precision", source="mixed precision")
    g_lr: float = setting(0.002, "Learning rate of the generator.",
        panel="Optimiser", source="StyleGAN2", bounds=POSITIVE)
    d_lr: float = setting(0.002, "Learning rate of the discriminator.",
        panel="Optimiser", source="StyleGAN2", bounds=POSITIVE)
    ttur_mult: float = setting(1.0, "Factor of the discriminator's learning rate.",
        panel="Optimiser", source="TTUR", bounds=POSITIVE)
    beta1: float = setting(0.0, "Adam's beta1.", panel="Optimiser", source="Adam", bounds=SHARE)
    beta2: float = setting(0.99, "Adam's beta2.", panel="Optimiser", source="Adam", bounds=SHARE)
    ema_kimg: float = setting(10.0,
        "Half-life of the moving average of the generator, in thousand images.",
        panel="Optimiser", source="Progressive GAN", bounds=NOT_NEGATIVE)
    ema_rampup: float | None = setting(None,
        "Limit --ema-kimg to this share of the images seen so far. none sets no limit.",
        panel="Optimiser", source="StyleGAN2-ADA", bounds=NOT_NEGATIVE)
    seed: int = setting(0, "Training seed of weights, data order and latents.",
        panel="Run", source="StyleGAN2-ADA", bounds=NOT_NEGATIVE)

    # StylEx: rejected if model is stylegan2, unless left at their defaults
    model: Literal["stylegan2", "stylex"] = setting("stylegan2",
        "stylex also trains an encoder, and explains a classifier.", panel="StylEx", source="StylEx")
    classifier: str | None = setting(None,
        "The classifier to explain: mnist, mnist-8-9, mnist-8, or a file of fact-train classifier.",
        panel="StylEx", source="StylEx", metavar="NAME|PATH")
    class_repr: Literal["softmax", "logits"] = setting("softmax",
        "What the classifier adds to w: probabilities or logits.", panel="StylEx", source="StylEx study")
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
    encoder_lr_mult: float = setting(1.0, "Learning rate of the encoder, relative to --g-lr.",
        panel="StylEx", source="StylEx study", bounds=POSITIVE)
    encoder_init: Literal["random", "standardised"] = setting("random",
        "standardised rescales the untrained encoder: w of 256 real images then has mean 0, deviation 1.",
        panel="StylEx", source="this project")
    e_channel_mult: float = setting(1.0, "Width of the encoder, relative to the generator's.",
        panel="StylEx", source="this project", bounds=POSITIVE)
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
    perceptual: str = setting("stlpips_alex",
        "Detector of the perceptual distance; see fact-eval list.",
        panel="StylEx", source="this project", metavar="DETECTOR")
    lpips_batch_shrink: int = setting(1,
        "The perceptual distance uses the images of a micro-batch divided by this number.",
        panel="StylEx", source="this project", bounds=POSITIVE)
    kl_scale: float = setting(1.0,
        "Weight of KL(C(x) || C(G(w))) for the classifier C. 0 switches it off.",
        panel="StylEx", source="StylEx", bounds=NOT_NEGATIVE)
    kl_branches: Literal["encoder", "both"] = setting("encoder",
        "Images that the KL loss trains: reconstructions only, or also images of the mapping network.",
        panel="StylEx", source="this project")

    kimg: float = setting(25000,
        "Train for this many thousand images. 0 writes the untrained network.",
        panel="Run", bounds=NOT_NEGATIVE, scope="schedule")
    kimg_per_tick: float = setting(4, "Print progress every this many thousand images (a tick).",
        panel="Run", bounds=POSITIVE, scope="schedule")
    snapshot_ticks: int = setting(50, "Save a snapshot and a checkpoint every this many ticks.",
        panel="Run", bounds=POSITIVE, scope="schedule")
    image_ticks: int = setting(50, "Save a grid of samples every this many ticks.",
        panel="Run", bounds=POSITIVE, scope="schedule")

    device: str = setting("auto", "Device: auto, cpu, cuda or cuda:N.",
        panel="Run", metavar="DEVICE", scope="machine")
    threads: int | None = setting(None,
        "CPU threads of this process. none takes all available cores.",
        panel="Run", bounds=POSITIVE, scope="machine")
    log_to: Literal["none", "wandb", "mlflow"] = setting("none",
        "Also send ticks and pictures to Weights & Biases or MLflow. TensorBoard events are always written.",
        panel="Run", scope="machine")
    cuda_graphs: bool = setting(False,
        "Replay all kernels of a phase as one CUDA graph: faster for small networks, with equal results.",
        panel="Run", scope="machine")
    # fmt: on

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            try:
                object.__setattr__(self, f.name, fit(f, getattr(self, f.name)))
            except ValueError as error:
                raise UsageError(f"{flag(f.name)} {getattr(self, f.name)}: {error}.") from None
        problem = find_problem(self, changed=_changed(self))
        if problem is not None:
            name, why = problem
            raise UsageError(f"{flag_with(name, getattr(self, name))}: {why}.")

    @classmethod
    def panel(cls, name: str) -> list[str]:
        """Names of the fields of one panel."""
        return [f.name for f in dataclasses.fields(cls) if f.metadata["panel"] == name]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        known = {f.name for f in dataclasses.fields(cls)}
        extra = sorted(set(values) - known)
        if extra:
            raise UsageError(f"unknown configuration field {extra[0]!r}: written by another version?")
        return cls(**values)

    def science(self) -> dict[str, Any]:
        """The fields that define the experiment, seed included."""
        return {f.name: getattr(self, f.name) for f in fields_of("science")}

    def sha256(self) -> str:
        """Hash of the science fields without the seed: equal for the training seeds of one configuration.

        Later fields count where they are not at their default.
        """
        counts = _FIRST_FIELDS | set(_changed(self))
        values = {k: v for k, v in self.science().items() if k != "seed" and k in counts}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def fields_of(*scopes: str) -> list[dataclasses.Field]:
    """The fields of TrainConfig in these scopes (all without any), in order."""
    return [f for f in dataclasses.fields(TrainConfig) if not scopes or f.metadata["scope"] in scopes]


def flag(name: str) -> str:
    """The command-line flag of a field: r1_gamma -> --r1-gamma."""
    return "--" + name.replace("_", "-")


def flag_with(name: str, value: Any) -> str:
    """A field's flag and value as they are typed: --r1-gamma 10.0, --mirror, --no-mirror."""
    if isinstance(value, bool):
        return flag(name) if value else f"--no-{flag(name)[2:]}"
    return f"{flag(name)} {value_text(value)}"


def differing_fields(a: TrainConfig, b: TrainConfig) -> list[str]:
    """Names of the science fields in which two configurations differ."""
    return [f.name for f in fields_of("science") if getattr(a, f.name) != getattr(b, f.name)]


def _changed(cfg: TrainConfig) -> list[str]:
    """Names of the fields that are not at their default."""
    return [f.name for f in fields_of() if getattr(cfg, f.name) != f.default]
