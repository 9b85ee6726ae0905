"""Parity of the detectors: the same random weights in the reference's file format, the same PNGs, two codes.

Each detector has two rows: its features, and the FID of two small sets in them.
"""

import contextlib
import functools
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.parity import Parity
from benchmarks.parity.reference_files import (
    IMAGES,
    installed,
    pictures,
    random_tensors,
    read_pictures,
    save,
    save_script,
    script_of,
    shapes_of,
)
from fact_metrics.engines.frechet import compute_fid
from fact_metrics.features import DETECTORS, Detector

ROUNDING = "float32 convolutions over another memory format, or with folded batch norms, sum in another order"


# Weight files, once per process.


@functools.cache
def inception_tensors() -> dict[str, Tensor]:
    """Random tensors of torch-fidelity's Inception file, which is pytorch-fid's too."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with mock.patch("torch.load", lambda *args, **kwargs: {}):
        with mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict"):
            net = FeatureExtractorInceptionV3("shapes", ["2048"], feature_extractor_weights_path="none")
    return random_tensors(shapes_of(net))


@functools.cache
def inception_file(name: str) -> Path:
    return save(name, inception_tensors())


@functools.cache
def script_file() -> Path:
    """An Inception in NVIDIA's format, which holds no gains."""
    from benchmarks.parity.scripted_inception import ScriptedInception, scripted_inception

    net = ScriptedInception()
    net.load_state_dict(random_tensors(shapes_of(net)))
    return save_script("inception_torchscript", scripted_inception(net))


@functools.cache
def torchvision_file(name: str, factory: str) -> Path:
    """A classifier of torchvision with random weights."""
    import torchvision

    with torch.device("meta"):
        net = getattr(torchvision.models, factory)(weights=None)
    return save(name, random_tensors(shapes_of(net)))


# Peers: features of PNG files.


def torch_fidelity_images(files: tuple[Path, ...]) -> Tensor:
    """uint8 [N, 3, H, W] as torch-fidelity reads them."""
    from torch_fidelity.datasets import ImagesPathDataset

    dataset = ImagesPathDataset([str(path) for path in files])
    return torch.stack([dataset[i] for i in range(len(dataset))])


@functools.cache
def torch_fidelity_inception() -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = str(inception_file("inception_fidelity"))
    layers = ["2048", "logits_unbiased"]
    return FeatureExtractorInceptionV3("parity", layers, feature_extractor_weights_path=path)


@functools.cache
def torch_fidelity_outputs(files: tuple[Path, ...]) -> dict[str, Tensor]:
    """Pooled features, unbiased logits, and what mixed_6/conv gives, read by a hook."""
    seen: list[Tensor] = []
    net = torch_fidelity_inception()
    hook = net.Mixed_6d.branch1x1.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.inference_mode():
        pooled, logits = net(torch_fidelity_images(files))
    hook.remove()
    return {"2048": pooled, "logits_unbiased": logits, "mixed_6/conv": seen[0][:, :7].flatten(1)}


def torch_fidelity_layer(files: tuple[Path, ...], *, layer: str) -> Tensor:
    return torch_fidelity_outputs(files)[layer]


@torch.inference_mode()
def torch_fidelity_vgg(files: tuple[Path, ...]) -> Tensor:
    import torchvision
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

    path = str(torchvision_file("vgg16_torchvision", "vgg16"))
    plain = partial(torchvision.models.vgg16, init_weights=False)  # only saves time
    with mock.patch("torchvision.models.vgg16", plain):
        net = FeatureExtractorVGG16("parity", ["fc2_relu"], feature_extractor_weights_path=path)
    return net(torch_fidelity_images(files))[0]


@contextlib.contextmanager
def clean_fid_finds_weights():
    """clean-fid looks in one fixed folder, or downloads; here it gets the files of this page."""
    from cleanfid.inception_torchscript import InceptionV3W

    folder = str(script_file().parent)
    state = torch.load(inception_file("inception_pytorch_fid"), weights_only=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit, of torchvision's defaults
        with (
            mock.patch(
                "cleanfid.features.InceptionV3W",
                lambda path, download, resize_inside: InceptionV3W(folder, False, resize_inside),
            ),
            mock.patch("cleanfid.inception_pytorch.load_state_dict_from_url", lambda *a, **k: state),
        ):
            yield


def clean_fid(files: tuple[Path, ...], *, mode: str) -> Tensor:
    from cleanfid.features import build_feature_extractor
    from cleanfid.fid import get_files_features

    device = torch.device("cpu")
    with clean_fid_finds_weights():
        net = build_feature_extractor(mode, device, use_dataparallel=False)
        features = get_files_features(
            [str(path) for path in files], net, num_workers=0, device=device, mode=mode, verbose=False
        )
    return torch.from_numpy(features)


def lpips_package(name: str, factory: str, weights: str) -> nn.Module:
    """`lpips.LPIPS` on our file of its trunk, with its own trained weights per channel."""
    import lpips
    import torchvision

    path = torchvision_file(weights, factory)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trunk = getattr(torchvision.models, factory)(weights=None)
        trunk.load_state_dict(torch.load(path, weights_only=True))
        with mock.patch(f"lpips.pretrained_networks.tv.{factory}", lambda pretrained: trunk):
            return lpips.LPIPS(net=name, verbose=False)


# CLIP in small: the same code and file format at a size that takes no time.


@functools.cache
def small_clip_tensors() -> dict[str, Tensor]:
    """A visual tower of 2 blocks, 128 channels, 16-pixel patches in OpenAI's format, with stubs of text."""
    from torch_fidelity.feature_extractor_clip import CLIPVisual

    net = CLIPVisual(48, 64, 2, 128, 16)
    text = {"text_projection": (8, 48), "positional_embedding": (4, 8), "ln_final.weight": (8,)}
    shapes = {**shapes_of(net), **text, "transformer.resblocks.0.ln_1.weight": (8,)}
    return {name: tensor.half() for name, tensor in random_tensors(shapes).items()}  # as OpenAI's are


def small_clip() -> Detector:
    """`clip_vit_b32` at the size of `small_clip_tensors`; resized as torch-fidelity does."""
    from fact_metrics.features.detectors.clip import CLIPViTB32, clip_config
    from fact_metrics.features.resize import resize

    class SmallCLIP(CLIPViTB32):
        config = clip_config(patch=16, grid=4, width=128, depth=2, output=48)
        width, size = 48, 64

        def squared(self, images: Tensor) -> Tensor:
            return resize(images.float(), mode="tf1", size=64)

    return SmallCLIP()


@torch.inference_mode()
def torch_fidelity_clip(files: tuple[Path, ...]) -> Tensor:
    from torch_fidelity.feature_extractor_clip import FeatureExtractorCLIP

    path = str(clip_file())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = FeatureExtractorCLIP("clip-vit-b-32", ["clip"], feature_extractor_weights_path=path)
    return net(torch_fidelity_images(files))[0]


@functools.cache
def clip_file() -> Path:
    return save_script("clip_vit_b32", script_of(small_clip_tensors()))


@torch.inference_mode()
def pytorch_fid(files: tuple[Path, ...]) -> Tensor:
    from pytorch_fid.fid_score import get_activations
    from pytorch_fid.inception import InceptionV3

    state = torch.load(inception_file("inception_pytorch_fid"), weights_only=True)
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with warnings.catch_warnings(), quiet[0], quiet[1]:
        warnings.simplefilter("ignore")
        with mock.patch("pytorch_fid.inception.load_state_dict_from_url", lambda *a, **k: state):
            net = InceptionV3()
        return torch.from_numpy(get_activations(list(files), net, num_workers=0))


# The rows.


@dataclass(frozen=True)
class Case:
    """A detector on the file `make_file` writes under `weights`, and a peer's features of PNG files."""

    name: str
    weights: str
    make_file: Callable[[], Path]
    peer: str
    theirs: Callable[[tuple[Path, ...]], Tensor]
    setting: str = ""
    make: Callable[[], Detector] | None = None

    @functools.cached_property
    def features(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Ours of both sets, and the peer's."""
        self.make_file()
        with installed(self.weights):
            detector = (self.make or DETECTORS[self.name])()
            ours = tuple(detector(read_pictures(files)) for files in pictures())
        return ours, tuple(self.theirs(files) for files in pictures())

    def row(self) -> Parity:
        ours, theirs = (torch.cat(sets).double() for sets in self.features)
        return Parity(
            metric=f"features {self.name}",
            setting=f"{self.setting}mean of {2 * IMAGES} x {ours.shape[1]}",
            ours=ours.mean().item(),
            peer=self.peer,
            theirs=theirs.mean().item(),
            tolerance=1e-5,
            note=ROUNDING,
            difference=((ours - theirs).abs().max() / theirs.abs().max()).item(),
        )

    def fid_condition(self) -> float:
        """Condition number of FID with respect to the features of both sets: |gradient| |features| / FID.

        To first order FID multiplies a relative error of the features by this factor at most.
        """
        sets = [features.double().requires_grad_() for features in self.features[1]]
        means = [rows.mean(dim=0) for rows in sets]
        roots = [(rows - mean) / (len(rows) - 1) ** 0.5 for rows, mean in zip(sets, means, strict=True)]
        spread = sum(root.square().sum() for root in roots)
        distance = (means[0] - means[1]).square().sum() + spread
        distance = distance - 2 * torch.linalg.matrix_norm(roots[0] @ roots[1].T, "nuc")
        gradient = torch.cat(torch.autograd.grad(distance, sets))
        return (gradient.norm() * torch.cat(sets).norm() / distance).item()

    def fid_row(self) -> Parity:
        ours, theirs = (compute_fid(*sets) for sets in self.features)
        return Parity(
            metric=f"FID {self.name}",
            setting=f"{self.setting}{IMAGES} and {IMAGES} images",
            ours=ours,
            peer=self.peer,
            theirs=theirs,
            tolerance=1e-6,
        )


FIDELITY, CLEAN = "torch-fidelity 0.4.0", "clean-fid 0.1.35"
fidelity_file = partial(inception_file, "inception_fidelity")
pytorch_fid_file = partial(inception_file, "inception_pytorch_fid")
vgg_file = partial(torchvision_file, "vgg16_torchvision", "vgg16")
CASES = (
    *(
        Case(name, "inception_fidelity", fidelity_file, FIDELITY, partial(torch_fidelity_layer, layer=layer))
        for name, layer in {
            "inception_pool3": "2048",
            "inception_logits": "logits_unbiased",
            "inception_spatial": "mixed_6/conv",
        }.items()
    ),
    *(
        Case(name, weights, make_file, f"{CLEAN}, {mode}", partial(clean_fid, mode=mode))
        for name, weights, make_file, mode in (
            ("clean_inception", "inception_torchscript", script_file, "clean"),
            ("inception_nvidia", "inception_torchscript", script_file, "legacy_tensorflow"),
            ("inception_pytorch_fid", "inception_pytorch_fid", pytorch_fid_file, "legacy_pytorch"),
        )
    ),
    Case("vgg16_fc2", "vgg16_torchvision", vgg_file, FIDELITY, torch_fidelity_vgg),
    Case("clip_vit_b32", "clip_vit_b32", clip_file, FIDELITY, torch_fidelity_clip, "2 blocks, ", small_clip),
)
PYTORCH_FID = Case(
    "inception_pytorch_fid", "inception_pytorch_fid", pytorch_fid_file, "pytorch-fid 0.3.0", pytorch_fid
)


def lpips_row(name: str, factory: str, weights: str) -> Parity:
    """LPIPS of 4 pairs."""
    make_file = partial(torchvision_file, weights, factory)
    make_file()
    a, b = (read_pictures(files) / 127.5 - 1 for files in pictures())
    with installed(weights):
        ours = DETECTORS[f"lpips_{name}"]().distance(a, b)
    with torch.inference_mode():
        theirs = lpips_package(name, factory, weights)(a, b).flatten()
    return Parity(
        metric=f"LPIPS lpips_{name}",
        setting=f"random trunk, trained channel weights, mean of {IMAGES} pairs",
        ours=ours.mean().item(),
        peer="lpips 0.1.4",
        theirs=theirs.mean().item(),
        tolerance=1e-6,
        difference=((ours - theirs).abs().max() / theirs.abs().max()).item(),
    )


ROWS = (
    *(row for case in CASES for row in (case.row, case.fid_row)),
    *((PYTORCH_FID.row, PYTORCH_FID.fid_row) if find_spec("pytorch_fid") else ()),
    partial(lpips_row, "alex", "alexnet", "alexnet_torchvision"),
    partial(lpips_row, "vgg", "vgg16", "vgg16_torchvision"),
    partial(lpips_row, "squeeze", "squeezenet1_1", "squeezenet11_torchvision"),
)
