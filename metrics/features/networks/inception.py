"""Inception-v3 of 2015-12-05, the network of FID, and the three formats its weights are published in.

Szegedy et al. 2016, arXiv:1512.00567, as TensorFlow's graph has it: 1,008 classes, average pools that do not
count their padding, a max pool in the last block. Batch norms are folded into the convolutions as the weights
are read. Equal to torch-fidelity, pytorch-fid and clean-fid on the same file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 299
POOLED = 2048
CLASSES = 1008
SPATIAL_CHANNELS = 7  # of mixed_6/conv, as in Nash et al. 2021 and guided-diffusion
SPATIAL = SPATIAL_CHANNELS * 17 * 17
BATCHNORM_EPSILON = 1e-3

AVERAGE = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
LARGEST = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
HALVE = partial(F.max_pool2d, kernel_size=3, stride=2)


@dataclass(frozen=True)
class Conv:
    """A convolution with batch norm and ReLU; its names in torch-fidelity's file and NVIDIA's TorchScript."""

    name: str
    script: str
    outputs: int
    kernel: int | tuple[int, int]
    stride: int = 1
    padded: bool = True


Step = Conv | tuple[Conv, Conv] | Callable[[Tensor], Tensor]  # a pair reads the same input, side by side
Branch = tuple[Step, ...]


def _block35(pooled: int) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", "conv", 64, 1),),
        (Conv("branch5x5_1", "tower.conv", 48, 1), Conv("branch5x5_2", "tower.conv_1", 64, 5)),
        (
            Conv("branch3x3dbl_1", "tower_1.conv", 64, 1),
            Conv("branch3x3dbl_2", "tower_1.conv_1", 96, 3),
            Conv("branch3x3dbl_3", "tower_1.conv_2", 96, 3),
        ),
        (AVERAGE, Conv("branch_pool", "tower_2.conv", pooled, 1)),
    )


def _to_17() -> tuple[Branch, ...]:
    return (
        (Conv("branch3x3", "conv", 384, 3, 2, False),),
        (
            Conv("branch3x3dbl_1", "tower.conv", 64, 1),
            Conv("branch3x3dbl_2", "tower.conv_1", 96, 3),
            Conv("branch3x3dbl_3", "tower.conv_2", 96, 3, 2, False),
        ),
        (HALVE,),
    )


def _block17(width: int) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", "conv", 192, 1),),
        (
            Conv("branch7x7_1", "tower.conv", width, 1),
            Conv("branch7x7_2", "tower.conv_1", width, (1, 7)),
            Conv("branch7x7_3", "tower.conv_2", 192, (7, 1)),
        ),
        (
            Conv("branch7x7dbl_1", "tower_1.conv", width, 1),
            Conv("branch7x7dbl_2", "tower_1.conv_1", width, (7, 1)),
            Conv("branch7x7dbl_3", "tower_1.conv_2", width, (1, 7)),
            Conv("branch7x7dbl_4", "tower_1.conv_3", width, (7, 1)),
            Conv("branch7x7dbl_5", "tower_1.conv_4", 192, (1, 7)),
        ),
        (AVERAGE, Conv("branch_pool", "tower_2.conv", 192, 1)),
    )


def _to_8() -> tuple[Branch, ...]:
    return (
        (
            Conv("branch3x3_1", "tower.conv", 192, 1),
            Conv("branch3x3_2", "tower.conv_1", 320, 3, 2, False),
        ),
        (
            Conv("branch7x7x3_1", "tower_1.conv", 192, 1),
            Conv("branch7x7x3_2", "tower_1.conv_1", 192, (1, 7)),
            Conv("branch7x7x3_3", "tower_1.conv_2", 192, (7, 1)),
            Conv("branch7x7x3_4", "tower_1.conv_3", 192, 3, 2, False),
        ),
        (HALVE,),
    )


def _block8(pool: Callable[[Tensor], Tensor]) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", "conv", 320, 1),),
        (
            Conv("branch3x3_1", "tower_conv", 384, 1),
            (
                Conv("branch3x3_2a", "tower_mixed_conv", 384, (1, 3)),
                Conv("branch3x3_2b", "tower_mixed_conv_1", 384, (3, 1)),
            ),
        ),
        (
            Conv("branch3x3dbl_1", "tower_1_conv", 448, 1),
            Conv("branch3x3dbl_2", "tower_1_conv_1", 384, 3),
            (
                Conv("branch3x3dbl_3a", "tower_1_mixed_conv", 384, (1, 3)),
                Conv("branch3x3dbl_3b", "tower_1_mixed_conv_1", 384, (3, 1)),
            ),
        ),
        (pool, Conv("branch_pool", "tower_2_conv", 192, 1)),
    )


STEM: Branch = (
    Conv("Conv2d_1a_3x3", "conv", 32, 3, 2, False),
    Conv("Conv2d_2a_3x3", "conv_1", 32, 3, 1, False),
    Conv("Conv2d_2b_3x3", "conv_2", 64, 3),
    HALVE,
    Conv("Conv2d_3b_1x1", "conv_3", 80, 1),
    Conv("Conv2d_4a_3x3", "conv_4", 192, 3, 1, False),
    HALVE,
)
BLOCKS: dict[tuple[str, str], tuple[Branch, ...]] = {
    ("Mixed_5b", "mixed"): _block35(32),
    ("Mixed_5c", "mixed_1"): _block35(64),
    ("Mixed_5d", "mixed_2"): _block35(64),
    ("Mixed_6a", "mixed_3"): _to_17(),
    ("Mixed_6b", "mixed_4"): _block17(128),
    ("Mixed_6c", "mixed_5"): _block17(160),
    ("Mixed_6d", "mixed_6"): _block17(160),
    ("Mixed_6e", "mixed_7"): _block17(192),
    ("Mixed_7a", "mixed_8"): _to_8(),
    ("Mixed_7b", "mixed_9"): _block8(AVERAGE),
    ("Mixed_7c", "mixed_10"): _block8(LARGEST),
}
SPATIAL_BLOCK = "Mixed_6d"


class ConvReLU(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu_()


class Branches(nn.Module):
    """Branches side by side on one input, their outputs concatenated; every convolution is a submodule."""

    def __init__(self, inputs: int, branches: tuple[Branch, ...]) -> None:
        super().__init__()
        self.branches = branches
        self.outputs = sum(self._build(inputs, branch) for branch in branches)

    def _build(self, inputs: int, branch: Branch) -> int:
        for step in branch:
            convs = step if isinstance(step, tuple) else (step,) if isinstance(step, Conv) else ()
            for conv in convs:
                kernel = (conv.kernel, conv.kernel) if isinstance(conv.kernel, int) else conv.kernel
                padding = tuple(k // 2 for k in kernel) if conv.padded else 0
                module = ConvReLU(inputs, conv.outputs, kernel, stride=conv.stride, padding=padding)
                self.add_module(conv.name, module)
            inputs = sum(conv.outputs for conv in convs) or inputs
        return inputs

    def forward(self, x: Tensor) -> Tensor:
        outputs = [part for branch in self.branches for part in self._run(branch, x)]
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]

    def _run(self, branch: Branch, x: Tensor) -> list[Tensor]:
        for step in branch[:-1]:
            x = getattr(self, step.name)(x) if isinstance(step, Conv) else step(x)
        last = branch[-1] if isinstance(branch[-1], tuple) else (branch[-1],)
        return [getattr(self, step.name)(x) if isinstance(step, Conv) else step(x) for step in last]


class Inception(nn.Module):
    """[N, 3, 299, 299] float32 in [-1, 1] to pooled features [N, 2048] and sFID's [N, 2023].

    `fc` makes the 1,008 logits of the pooled features; without its bias they are torch-fidelity's
    `logits_unbiased`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Branches(3, (STEM,))
        inputs = self.stem.outputs
        for (name, _), branches in BLOCKS.items():
            block = Branches(inputs, branches)
            self.add_module(name, block)
            inputs = block.outputs
        self.fc = nn.Linear(inputs, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for name, _ in BLOCKS:
            x = getattr(self, name)(x)
            if name == SPATIAL_BLOCK:
                spatial = x[:, :SPATIAL_CHANNELS].flatten(1)
        return x.mean(dim=(2, 3)), spatial


def from_fidelity(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights for `Inception` out of torch-fidelity's or pytorch-fid's file. Raises ValueError on others."""
    names = {own: f"{own.removeprefix('stem.')}." for own in _own_names().values()}
    parts = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    return _converted(state, names, parts, output="fc")


def from_torchscript(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights for `Inception` out of the tensors of NVIDIA's TorchScript, whose batch norms have no gain."""
    names = {own: f"layers.{script}." for script, own in _own_names().items()}
    return _converted(state, names, ("weight", None, "beta", "mean", "var"), output="output")


def _own_names() -> dict[str, str]:
    """{name in NVIDIA's TorchScript: name of the convolution in `Inception`}."""

    def convs(branches: tuple[Branch, ...]) -> list[Conv]:
        steps = [step for branch in branches for step in branch]
        flat = [part for step in steps for part in (step if isinstance(step, tuple) else (step,))]
        return [step for step in flat if isinstance(step, Conv)]

    names = {conv.script: f"stem.{conv.name}" for conv in convs((STEM,))}
    for (block, script), branches in BLOCKS.items():
        names |= {f"{script}.{conv.script}": f"{block}.{conv.name}" for conv in convs(branches)}
    return names


def _converted(
    state: dict[str, Tensor], names: dict[str, str], parts: tuple[str | None, ...], *, output: str
) -> dict[str, Tensor]:
    expected = {prefix + part for prefix in names.values() for part in parts if part is not None}
    expected |= {f"{output}.weight", f"{output}.bias"}
    found = {key for key in state if not key.endswith("num_batches_tracked")}
    if expected != found:
        missing, unexpected = sorted(expected - found), sorted(found - expected)
        told = f"it lacks {missing[0]}" if missing else f"it also has {unexpected[0]}"
        raise ValueError(f"{told}; Inception-v3 with 94 convolutions and 1,008 classes is expected")
    own = {"fc.weight": state[f"{output}.weight"], "fc.bias": state[f"{output}.bias"]}
    for name, prefix in names.items():
        weight, gain, shift, mean, var = (
            None if part is None else state[prefix + part].double() for part in parts
        )
        scale = (1.0 if gain is None else gain) / (var + BATCHNORM_EPSILON).sqrt()
        own[f"{name}.weight"] = (weight * scale.view(-1, 1, 1, 1)).float()
        own[f"{name}.bias"] = (shift - mean * scale).float()
    return own
