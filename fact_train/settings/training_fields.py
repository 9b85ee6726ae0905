"""Fields of TrainConfig about losses, augmentation and optimisers."""

from dataclasses import dataclass
from typing import Literal

from fact_train.settings.fields import MEAN_SIGN, NOT_NEGATIVE, POSITIVE, PROBABILITY_ABOVE_0, SHARE, setting
from fact_train.settings.schedules import canonical


@dataclass(frozen=True)
class TrainingFields:
    """Panels Losses and regularisation, Augmentation, Optimiser, Precision, Fine-tuning; the seed."""

    # fmt: off
    loss: Literal["logistic", "hinge", "relativistic", "dual-contrastive"] = setting("logistic",
        "Adversarial loss of D and G. relativistic and dual-contrastive also compare generated with real "
        "images.",
        panel="Losses and regularisation", source="adversarial losses")
    top_k: float = setting(1.0,
        "Share of a micro-batch that trains G: the images with the highest scores. See --schedule.",
        panel="Losses and regularisation", source="top-k training", bounds=PROBABILITY_ABOVE_0)
    r1_gamma: float | Literal["auto"] = setting(10.0,
        "Weight of the R1 penalty. 0 switches it off; auto is 0.0002 * resolution^2 / --r1-auto-batch.",
        panel="Losses and regularisation", source="R1", bounds=NOT_NEGATIVE,
        reported="auto (0.0032 at 32 px) and 1 fail with several style vectors; 10 works.")
    r1_auto_batch: int | None = setting(None,
        "Batch in --r1-gamma auto. none is that of StyleGAN2-ADA's auto configuration, on one GPU.",
        panel="Losses and regularisation", source="StyleGAN2-ADA", bounds=POSITIVE)
    r1_gamma_final: float | None = setting(None,
        "Weight that R1 reaches geometrically within --r1-decay-kimg. none keeps --r1-gamma.",
        panel="Losses and regularisation", source="R3GAN", bounds=POSITIVE)
    r1_decay_kimg: float = setting(50.0, "Thousand images until R1 reaches --r1-gamma-final.",
        panel="Losses and regularisation", source="R3GAN", bounds=POSITIVE)
    r1_interval: int = setting(16,
        "Apply R1 and R2 every this many steps, with their weights multiplied by the same number.",
        panel="Losses and regularisation", source="StyleGAN2", bounds=POSITIVE)
    r1_phase: Literal["own", "d"] = setting("own",
        "own: R1 and R2 take an optimiser step of their own. d: they join the loss of D in every "
        "--r1-interval-th step.",
        panel="Losses and regularisation", source="StyleGAN2")
    gp: Literal["zero", "one"] = setting("zero",
        "Where R1 pulls the gradient of D at real images: its norm to zero, or to one as in WGAN-GP.",
        panel="Losses and regularisation", source="WGAN-GP")
    r2_gamma: float = setting(0.0,
        "Weight of R2, the zero-centred penalty on generated images. 0 switches it off.",
        panel="Losses and regularisation", source="R1", bounds=NOT_NEGATIVE)
    pl_weight: float = setting(2.0, "Weight of the path-length penalty. 0 switches it off.",
        panel="Losses and regularisation", source="StyleGAN2", bounds=NOT_NEGATIVE,
        reported="0 and 2 were tried; both train.")
    pl_power: float = setting(0.5,
        "Multiply path lengths by the number of --pl-rows to this power.",
        panel="Losses and regularisation", source="style experiments",
        reported="0 and 0.5 were tried. At 0 path lengths fall with sqrt(K).")
    pl_rows: Literal["layer", "all"] = setting("layer",
        "Rows of w that --pl-power counts: the K style vectors of a layer, or those of all layers as in the "
        "style experiments.",
        panel="Losses and regularisation", source="style experiments")
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
        "Factor of the discriminator's adversarial loss. R1 and R2 are not scaled.",
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
    fp16_layers: int = setting(0,
        "Hold the feature maps of this many of the highest resolutions in fp16, on a GPU. A CPU uses fp32.",
        panel="Precision", source="StyleGAN2-ADA", bounds=NOT_NEGATIVE)
    g_lr: float = setting(0.002, "Learning rate of the generator.",
        panel="Optimiser", source="StyleGAN2", bounds=POSITIVE)
    d_lr: float = setting(0.002, "Learning rate of the discriminator.",
        panel="Optimiser", source="StyleGAN2", bounds=POSITIVE)
    ttur_mult: float = setting(1.0, "Factor of the discriminator's learning rate.",
        panel="Optimiser", source="TTUR", bounds=POSITIVE)
    beta1: float = setting(0.0, "Adam's beta1.", panel="Optimiser", source="Adam", bounds=SHARE)
    beta2: float = setting(0.99, "Adam's beta2.", panel="Optimiser", source="Adam", bounds=SHARE)
    schedule: str | None = setting(None,
        "Settings that change in training: NAME=SHAPE:END:KIMG, with commas between. Each starts at its own "
        "flag and reaches END after KIMG thousand images. SHAPE is cosine or geometric. NAME is g_lr, d_lr, "
        "beta2, ema_kimg, augment_p, r1_gamma, r2_gamma or top_k.",
        panel="Optimiser", source="R3GAN", metavar="NAME=SHAPE:END:KIMG", canonical=canonical)
    ema_kimg: float = setting(10.0,
        "Half-life of the moving average of the generator, in thousand images.",
        panel="Optimiser", source="Progressive GAN", bounds=NOT_NEGATIVE)
    ema_rampup: float | None = setting(None,
        "Limit --ema-kimg to this share of the images seen so far. none sets no limit.",
        panel="Optimiser", source="StyleGAN2-ADA", bounds=NOT_NEGATIVE)
    init: str | None = setting(None,
        "Checkpoint whose G, D and moving average the run starts from. none starts from random weights.",
        panel="Fine-tuning", source="StyleGAN2-ADA", metavar="FILE")
    init_partial: bool = setting(False,
        "Start tensors that --init lacks, or has in another shape, from random values. Off rejects the file.",
        panel="Fine-tuning", source="this project")
    freeze_d: int = setting(0,
        "Keep the first layers of D as in --init, this many from the image on. The 4x4 block always trains.",
        panel="Fine-tuning", source="FreezeD", bounds=NOT_NEGATIVE)
    seed: int = setting(0, "Training seed of weights, data order and latents.",
        panel="Run", source="StyleGAN2-ADA", bounds=NOT_NEGATIVE)
    # fmt: on
