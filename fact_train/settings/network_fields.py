"""Fields of TrainConfig about the data and the networks."""

from dataclasses import dataclass
from typing import Literal

from fact_metrics.base.image_size import parse_resolution
from fact_train.settings.fields import NOT_NEGATIVE, NOT_ZERO, POSITIVE, SIDE, setting


@dataclass(frozen=True)
class NetworkFields:
    """Panels Data, Generator, Style injection and Discriminator."""

    # fmt: off
    data: str = setting("mnist",
        "Training images: mnist, stacked-mnist, the path of an image folder, zip, tar, npz, npy or idx "
        "folder, or hf:PATH of a Hugging Face dataset on disk.",
        panel="Data", source="this project", metavar="NAME|PATH")
    resolution: int | str | None = setting(None,
        "Size of the training images in pixels. One number is the side of a square, a power of two from 8. "
        "HEIGHTxWIDTH doubles a base shape: 256x128 doubles 4x2. none keeps the size of square files.",
        panel="Data", source="StyleGAN2-ADA", bounds=SIDE, metavar="INT|HEIGHTxWIDTH",
        canonical=parse_resolution)
    resize: str = setting("lanczos",
        "Filter that resizes images of another size. none rejects them.",
        panel="Data", source="StyleGAN2-ADA",
        choices=("lanczos", "box", "bicubic", "bilinear", "hamming", "nearest", "none"))
    crop: str = setting("none",
        "How images get the shape of --resolution, or become square without it: cut to the centre, or padded "
        "with zeros. none rejects other shapes.",
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

    labels: Literal["auto", "folders", "none"] = setting("auto",
        "Where labels come from. auto: dataset.json, or the .cls or .json of WebDataset samples. folders: "
        "one folder per class. none: unlabelled.",
        panel="Data", source="this project")
    image_key: str | None = setting(None,
        "Of samples with several images (s0.input.png, s0.mask.png) the key of the training image; of hf: "
        "the image column.",
        panel="Data", source="this project", metavar="KEY")
    balance: bool = setting(False,
        "Train on real images of all classes equally often. Classes are the labels, in StylEx what the "
        "classifier says.",
        panel="Data", source="StylEx study")

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
        "Train the mapping network. Off leaves it at its initialisation: random, or from --init.",
        panel="Generator", source="style experiments", off_alias="--freeze-mapping",
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
    style_amplify: float | Literal["sqrt", "k"] = setting(1.0,
        "Contrast c of the style S: S becomes 1 + c (S - 1). sqrt is sqrt(I) for I channels, k is K.",
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
    latent_norm: Literal["row", "joint", "none"] = setting("row",
        "Normalise each of the K rows of z by itself, or all rows as one vector, or neither.",
        panel="Style injection", source="style experiments",
        reported="Later training scripts at 256 px use joint; their default is none.")
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
    d_channel_max: int | None = setting(None,
        "Upper limit on the feature maps of a discriminator layer. none is --channel-max times "
        "--d-channel-mult.",
        panel="Discriminator", source="StylEx study", bounds=POSITIVE)
    conv_clamp: float | None = setting(None,
        "Clamp the activations of convolutions to this absolute value. none switches clamping off.",
        panel="Precision", source="StyleGAN2-ADA", bounds=POSITIVE)
    # fmt: on
