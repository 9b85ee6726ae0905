"""Reference networks of a checkout, in a process of their own: their packages have equal names."""

import copy
import pickle
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A configuration of reference networks; widths are channel_base / resolution, at most channel_max."""

    name: str
    resolution: int
    architecture: str = "skip"
    classes: int = 0
    mapping: int = 8
    fp16: int = 0
    base: int = 4096
    most: int = 64
    trained: int = 0  # steps of its own loss
    fork: dict[str, Any] = field(default_factory=dict)  # settings of the style-vector fork


NVIDIA = (
    Case("skip", 32, mapping=2),
    Case("resnet", 64, "resnet"),
    Case("orig, 10 classes", 64, "orig", classes=10, mapping=2),
    Case("skip, 5 classes, fp16", 256, classes=5, fp16=4),
    Case("resnet, fp16", 512, "resnet", fp16=4, base=8192),
    Case("skip, full width, fp16", 1024, fp16=4, base=32768, most=512),
)
ADA = (*NVIDIA, Case("skip, trained 16 steps", 32, mapping=2, trained=16))
ROSINALITY = (
    Case("mapping of 2", 32, mapping=2, base=16384, most=512),
    Case("multiplier 1", 64, base=16384, most=512),
    Case("multiplier 2", 256, base=32768, most=512),
    Case("multiplier 2", 1024, base=32768, most=512),
)
VECTORS = dict(use_adaconv=True, normalize_latent=True, div_by_sqrt=False, inject_in_torgb=True, slowdown=1.0)
FORK = (
    Case("64 style vectors", 32, mapping=2, fork=VECTORS),
    Case("of its final recipe", 64, "resnet", mapping=2, fork=VECTORS | dict(slowdown=100.0)),
    Case(
        *("z and ToRGB plain", 32),
        **dict(
            mapping=2, fork=VECTORS | dict(normalize_latent=False, div_by_sqrt=True, inject_in_torgb=False)
        ),
    ),
    Case("one style vector", 64, fork=VECTORS | dict(use_adaconv=False)),
)


@dataclass
class Made:
    """Reference networks, and how they render: latents, labels, psi -> images; images, labels -> scores."""

    file: Path
    images: Callable[[Tensor, Tensor | None, float], Tensor] | None
    scores: Callable[[Tensor, Tensor | None], Tensor] | None
    reload: Callable[[dict[str, Tensor], dict[str, Any]], bool] | None = None  # is the export equal?
    G: nn.Module | None = None  # of NVIDIA's programs


# What only this program has; the fork has the files of the one below it.
MARKS = {
    "stylegan3": "training/networks_stylegan2.py",
    "style-vector fork": "training/fused_modconv.py",
    "stylegan2-ada-pytorch": "training/networks.py",
    "rosinality": "swagan.py",
}


def kind_of(folder: Path) -> str | None:
    """Which program a checkout holds, by its files."""
    return next((name for name, file in MARKS.items() if (folder / file).is_file()), None)


def shake(*networks: nn.Module) -> None:
    """Give biases, noise strengths and averages values: a fresh network hides them."""
    torch.manual_seed(1)
    with torch.no_grad():
        for net in networks:
            for name, value in net.state_dict().items():
                if name.endswith(("bias", "noise_strength", "noise.weight", "w_avg")):
                    value.add_(torch.randn_like(value) * 0.3)


def nvidia(case: Case, file: Path, kind: str) -> Made:
    """StyleGAN2-ADA, or the stylegan2 configurations of StyleGAN3; the file is a pickle of its own."""
    if kind == "stylegan3":
        from training.networks_stylegan2 import Discriminator, Generator
    else:
        from training.networks import Discriminator, Generator

    shape = dict(c_dim=case.classes, img_resolution=case.resolution, img_channels=3)
    width = dict(channel_base=case.base, channel_max=case.most)
    width |= dict(num_fp16_res=case.fp16, conv_clamp=256 if case.fp16 else None)
    synthesis = dict(architecture=case.architecture, **width)
    if kind != "stylegan3":
        synthesis = dict(synthesis_kwargs=synthesis)
    torch.manual_seed(0)
    mapping = dict(num_layers=case.mapping)
    if case.fork:
        synthesis = _fork_arguments(case.fork, mapping, synthesis["synthesis_kwargs"])
    G = Generator(z_dim=64, w_dim=64, mapping_kwargs=mapping, **shape, **synthesis)
    D = Discriminator(
        architecture="resnet" if case.architecture == "skip" else case.architecture, **shape, **width
    )
    if case.trained:
        G, D = _trained(case)
    else:
        shake(G, D)
    for net in (G, D):
        net.eval().requires_grad_(False)
    with open(file, "wb") as f:
        pickle.dump(dict(G=G, D=D, G_ema=copy.deepcopy(G), augment_pipe=None, training_set_kwargs={}), f)
    none = torch.zeros(0)

    def images(z: Tensor, c: Tensor | None, psi: float) -> Tensor:
        c = none.expand(len(z), 0) if c is None else c
        return G(z, c, truncation_psi=psi, noise_mode="const", force_fp32=True)

    def scores(img: Tensor, c: Tensor | None) -> Tensor:
        return D(img, none.expand(len(img), 0) if c is None else c, force_fp32=True)

    def reload(tensors: dict[str, Tensor], arguments: dict[str, Any]) -> bool:
        equal = True
        for name, net, kind_ in (("G_ema", G, Generator), ("D", D, Discriminator)):
            own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            given = dict(arguments[name])
            if kind == "stylegan3":
                given |= given.pop("synthesis_kwargs", {})
            again = kind_(**given)
            again.load_state_dict(own, strict=True)
            theirs = net.state_dict()
            equal &= all(torch.equal(value, theirs[k]) for k, value in again.state_dict().items())
        return equal

    return Made(file, images, scores, None if case.fork else reload, G)


def _fork_arguments(
    fork: dict[str, Any], mapping: dict[str, Any], synthesis: dict[str, Any]
) -> dict[str, Any]:
    """Arguments of yohan-pg's Generator; those of its mapping are added to `mapping`."""
    mapping |= dict(mapper_slowdown=1.0, **{k: fork[k] for k in ("normalize_latent", "div_by_sqrt")})
    own = dict(inject_in_torgb=fork["inject_in_torgb"], affine_slowdown=fork["slowdown"], bias_init=1.0)
    return dict(use_adaconv=fork["use_adaconv"], synthesis_kwargs=synthesis | own)


def _trained(case: Case) -> tuple[nn.Module, nn.Module]:
    """Networks after steps of the reference's own loss on random images."""
    from benchmarks.reference import Reference
    from fact_train.settings.config import TrainConfig

    cfg = TrainConfig(
        resolution=case.resolution,
        z_dim=64,
        w_dim=64,
        map_depth=case.mapping,
        channel_base=case.base,
        channel_max=case.most,
        batch=4,
    )
    reference = Reference(cfg, torch.device("cpu"))
    for _ in range(case.trained):
        reference.step()
    return reference.G_ema, reference.learners[1].net


def rosinality(case: Case, file: Path) -> Made:
    """rosinality/stylegan2-pytorch, whose CUDA kernels are not compiled: on a CPU it has its own fallback."""
    import torch.utils.cpp_extension

    torch.utils.cpp_extension.load = lambda *_, **__: None
    from model import Discriminator, Generator

    multiplier = case.base // 16384
    torch.manual_seed(0)
    G = Generator(case.resolution, 64, case.mapping, channel_multiplier=multiplier)
    D = Discriminator(case.resolution, channel_multiplier=multiplier)
    shake(G, D)
    for net in (G, D):
        net.eval().requires_grad_(False)
    average = G.mean_latent(4096)
    torch.save(
        {"g": G.state_dict(), "d": D.state_dict(), "g_ema": G.state_dict(), "latent_avg": average[0]}, file
    )

    def images(z: Tensor, c: Tensor | None, psi: float) -> Tensor:
        return G([z], truncation=psi, truncation_latent=average, randomize_noise=False)[0]

    return Made(file, images, lambda img, c: D(img))


def alias_free(file: Path) -> Made:
    """A network of StyleGAN3 proper, which must be refused."""
    from training.networks_stylegan3 import Generator

    shape = dict(c_dim=0, img_resolution=32, img_channels=3)
    G = Generator(z_dim=64, w_dim=64, channel_base=1024, channel_max=32, **shape).eval()
    with open(file, "wb") as f:
        pickle.dump(dict(G=G, D=None, G_ema=G), f)
    return Made(file, None, None)


def enter(folder: Path) -> None:
    """Make the packages of a checkout importable in this process, with what new Pythons no longer have."""
    import setuptools  # noqa: F401  gives new Pythons the module distutils, which the references import
    from packaging.version import parse

    sys.modules.setdefault("pkg_resources", types.ModuleType("pkg_resources")).parse_version = parse
    sys.path.insert(0, str(folder))
