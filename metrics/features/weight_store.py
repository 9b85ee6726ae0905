"""Weight files of the published detectors: which there are, where they lie, whether they are the right ones.

Nothing is ever fetched from here (`fact-eval weights fetch` does) and torch is not imported, so planning can
ask what is installed. Sizes and hashes are those of the files as published; the first hash digits also stand
in the names torchvision, torch-fidelity and OpenAI gave them. Files are looked for, in this order, in
$FACT_WEIGHTS (else weights/ in the cache folder), in the folders of $FACT_WEIGHTS_SHARED, which are only
read, and in torch's own download folder, where torchvision, torch-fidelity and lpips leave theirs.
"""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from fact_metrics.base import file_hashes, schema, signing
from fact_metrics.base.errors import UsageError, UserError, unknown_name
from fact_metrics.base.folders import cache_folder, config_folder
from fact_metrics.base.plain_text import check_file_name

FOLDER = "FACT_WEIGHTS"
SHARED = "FACT_WEIGHTS_SHARED"
RANDOM = "FACT_RANDOM_WEIGHTS"  # set by `random_weights`; an environment variable reaches worker processes
RANDOM_PREFIX = "random weights"
MANIFEST = "manifest.json"
TRUSTED = "trusted-weights.json"  # in the user's own folder
SCHEMA = 1

Format = Literal["state_dict", "safetensors", "torchscript"]


class EntryShape(msgspec.Struct):
    """A file of a manifest."""

    filename: str
    sha256: str
    bytes: int
    mtime_ns: int
    format: Format
    trusted: bool

    def __post_init__(self) -> None:
        check_file_name(self.filename, "filename")


class ManifestShape(msgspec.Struct):
    """The manifest of a weights folder."""

    schema: Literal[1]
    files: dict[str, EntryShape]


@dataclass(frozen=True)
class WeightFile:
    """A published weight file. `sha256_prefix` is the part of its hash that its published name carries."""

    name: str
    filename: str
    sha256: str
    sha256_prefix: str | None
    bytes: int
    url: str
    origin: str
    format: Format

    @property
    def size(self) -> str:
        return f"{self.bytes / 1e6:,.1f} MB"


def _file(
    name: str,
    url: str,
    sha256: str,
    size: int,
    origin: str,
    *,
    prefix: str | None = None,
    format: Format = "state_dict",
) -> WeightFile:
    return WeightFile(name, url.rsplit("/", 1)[1], sha256, prefix, size, url, origin, format)


WEIGHTS: dict[str, WeightFile] = {
    file.name: file
    for file in (
        _file(
            "inception_fidelity",
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
            "weights-inception-2015-12-05-6726825d.pth",
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            95_628_359,
            "torch-fidelity: TensorFlow's Inception-v3 of 2015-12-05, ported",
            prefix="6726825d",
        ),
        _file(
            "inception_pytorch_fid",
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
            "pt_inception-2015-12-05-6726825d.pth",
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            95_628_359,
            "pytorch-fid: TensorFlow's Inception-v3 of 2015-12-05, ported (same bytes as torch-fidelity's)",
            prefix="6726825d",
        ),
        _file(
            "inception_torchscript",
            "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
            "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
            95_607_719,
            "NVIDIA: TensorFlow's Inception-v3 of 2015-12-05 as TorchScript, used by StyleGAN and clean-fid",
            format="torchscript",
        ),
        _file(
            "vgg16_torchvision",
            "https://download.pytorch.org/models/vgg16-397923af.pth",
            "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            553_433_881,
            "torchvision: VGG16, ImageNet; read by torch-fidelity and lpips",
            prefix="397923af",
        ),
        _file(
            "alexnet_torchvision",
            "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
            244_408_911,
            "torchvision: AlexNet, ImageNet; read by lpips",
            prefix="7be5be79",
        ),
        _file(
            "squeezenet11_torchvision",
            "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
            "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
            4_958_839,
            "torchvision: SqueezeNet 1.1, ImageNet; read by lpips",
            prefix="b8a52dc0",
        ),
        _file(
            "clip_vit_b32",
            "https://openaipublic.azureedge.net/clip/models/"
            "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
            "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
            353_976_522,
            "OpenAI CLIP ViT-B/32",
            format="torchscript",
        ),
        _file(
            "clip_vit_l14_336",
            "https://openaipublic.azureedge.net/clip/models/"
            "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt",
            "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
            934_088_680,
            "OpenAI CLIP ViT-L/14 at 336 pixels",
            format="torchscript",
        ),
        _file(
            "dinov2_vits14",
            "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
            "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
            88_283_115,
            "Meta DINOv2 ViT-S/14",
        ),
        _file(
            "dinov2_vitb14",
            "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
            "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
            346_378_731,
            "Meta DINOv2 ViT-B/14",
        ),
        _file(
            "dinov2_vitl14",
            "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
            "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
            1_217_586_395,
            "Meta DINOv2 ViT-L/14",
        ),
    )
}


class MissingWeights(UserError):
    """The weight file `name` is not installed, or what lies in its place is not it."""

    def __init__(self, name: str, message: str):
        super().__init__(message)
        self.name = name


@dataclass(frozen=True)
class Installed:
    """A weight file in place. `trusted`: not the published file, taken on the user's word."""

    path: Path
    sha256: str
    format: Format
    trusted: bool


def weight_file(name: str) -> WeightFile:
    """The published file of that name. Raises UsageError (with "did you mean") on an unknown one."""
    if name not in WEIGHTS:
        raise unknown_name("weights", name, WEIGHTS)
    return WEIGHTS[name]


def weights_folder() -> Path:
    """Where weights are put: $FACT_WEIGHTS, or weights/ in the cache folder."""
    return Path(os.environ.get(FOLDER) or cache_folder() / "weights").expanduser()


def shared_folders() -> list[Path]:
    """Folders that are only read: $FACT_WEIGHTS_SHARED, separated as in PATH."""
    return [Path(part).expanduser() for part in os.environ.get(SHARED, "").split(os.pathsep) if part]


def torch_folder() -> Path:
    """Where torch.hub keeps downloads; only read, and only files with the published hash are taken."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return Path(home).expanduser() / "hub" / "checkpoints"


def read_manifest(folder: Path) -> dict[str, dict]:
    """{name: {filename, sha256, bytes, mtime_ns, format, trusted, from, added}} of a folder; {} without one.

    Raises UserError where the file is damaged.
    """
    path, way_out = Path(folder) / MANIFEST, "remove it, then run fact-eval weights check"
    try:
        return schema.read_document(path, ManifestShape, way_out=way_out)["files"]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {way_out}") from error


def trusted_hashes() -> dict[str, str]:
    """{sha256: name} of the files that this user trusts in place of published ones."""
    trusted = signing.read_signed(config_folder() / TRUSTED)
    return trusted if isinstance(trusted, dict) else {}


def trust(sha256: str, name: str) -> None:
    """Trust a file's content in place of the published file `name`. UserError if that cannot be saved."""
    signing.write_signed(config_folder() / TRUSTED, {**trusted_hashes(), sha256: name})


def look_up(name: str) -> tuple[Installed | None, list[str]]:
    """The installed file of that name, or None; and a line for every file in its place that is not it."""
    wanted = weight_file(name)
    wrong: dict[Path, str] = {}
    for folder in (weights_folder(), *shared_folders(), torch_folder()):
        entry = None if folder == torch_folder() else read_manifest(folder).get(name)
        if entry is not None:
            path = folder / entry["filename"]
            found = _recorded_sha256(path, entry)
            is_published = found == wanted.sha256
            if found == entry["sha256"] and (is_published or trusted_hashes().get(found) == name):
                return Installed(path, found, entry["format"], not is_published), []
            if found is not None:
                wrong[path] = found
        for path in (folder / filename for filename in _filenames(wanted)):
            found = file_sha256(path)
            if found == wanted.sha256:
                return Installed(path, found, wanted.format, trusted=False), []
            if found is not None:
                wrong[path] = found
    return None, [
        f"{path} is not it: sha256 {found[:12]}, {_size(path)}; if you trust it: fact-eval weights add "
        f"{path} --as {name} --trust"
        for path, found in wrong.items()
    ]


def find_weights(name: str) -> Path:
    """Path of an installed weight file. Raises MissingWeights: file, size, hash, address, what to type."""
    return find_installed(name).path


def find_installed(name: str) -> Installed:
    """The installed weight file of that name; raises as `find_weights`."""
    installed, problems = look_up(name)
    if installed is None:
        raise MissingWeights(name, missing_message(name, problems))
    return installed


def missing_message(name: str, problems: list[str]) -> str:
    """What to say where a weight file is missing: everything needed to get it, in one line."""
    wanted = weight_file(name)
    there = f" ({'; '.join(problems)})" if problems else ""
    return (
        f"weights {name} are not installed{there}: {wanted.filename}, {wanted.size}, sha256 {wanted.sha256}, "
        f"from {wanted.url}. `fact-eval weights fetch {name}` puts the file into {weights_folder()}; "
        f"a copy made elsewhere goes there with `fact-eval weights add FILE`"
    )


def weights_sha256(name: str) -> str | None:
    """SHA-256 of the installed file, None where there is none; in smoke mode a text that is no hash."""
    seed = random_weights_seed()
    if seed is not None:
        weight_file(name)
        return random_label(seed)
    installed, _ = look_up(name)
    return installed.sha256 if installed else None


def fingerprint_sha256(name: str) -> str:
    """What a detector's fingerprint says of a file: `weights_sha256`, or the published hash without it.

    So a protocol is the same protocol on a machine that cannot compute it.
    """
    return weights_sha256(name) or weight_file(name).sha256


def file_sha256(path: Path) -> str | None:
    """SHA-256 of a file, None if there is none to read; read again only when its size or time changed."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return _sha256(path, stat.st_size, stat.st_mtime_ns) if path.is_file() else None


@contextmanager
def random_weights(seed: int = 0) -> Iterator[None]:
    """Smoke mode: inside it every downloadable network has seeded random weights, and says so."""
    before = os.environ.get(RANDOM)
    os.environ[RANDOM] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ[RANDOM]
        else:
            os.environ[RANDOM] = before


def random_weights_seed() -> int | None:
    """The seed of the smoke mode; None outside it. UsageError where the variable holds no number."""
    text = os.environ.get(RANDOM)
    if text and not text.isdigit():
        raise UsageError(
            f"{RANDOM}={text!r} is not a seed; unset it: `--random-weights` sets it for a command"
        )
    return int(text) if text else None


def random_label(seed: int) -> str:
    """What stands in a fingerprint where the hash of a weight file would."""
    return f"{RANDOM_PREFIX}, seed {seed}"


def mentions_random_weights(value: object) -> bool:
    """Whether a protocol or fingerprint was made in smoke mode."""
    if isinstance(value, dict):
        return any(mentions_random_weights(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(mentions_random_weights(item) for item in value)
    return isinstance(value, str) and value.startswith(RANDOM_PREFIX)


def _filenames(wanted: WeightFile) -> list[str]:
    """Names the content is published under, its own first: one file may have several homes."""
    same = [file.filename for file in WEIGHTS.values() if file.sha256 == wanted.sha256]
    return list(dict.fromkeys([wanted.filename, *same]))


def _recorded_sha256(path: Path, entry: dict) -> str | None:
    """Hash of a file of the manifest, from there while size and time are as recorded; None if it is gone."""
    try:
        stat = path.stat()
    except OSError:
        return None
    if (stat.st_size, stat.st_mtime_ns) == (entry["bytes"], entry["mtime_ns"]):
        return entry["sha256"]
    return file_sha256(path)


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:,.1f} MB"


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, size: int, mtime_ns: int) -> str | None:
    try:
        return file_hashes.file_sha256(path)
    except OSError:
        return None
