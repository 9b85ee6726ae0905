"""Reading the downloaded weights of detectors: checked against their hash, and only in safe formats.

State dicts are read with weights_only, safetensors as they are, and of TorchScript the tensors alone
(torchscript.py): no code in any of these files runs. What the files are and where they lie: weight_store.py.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fact_metrics.base.errors import UserError
from fact_metrics.base.torch_files import load_torch
from fact_metrics.features.torchscript import read_torchscript
from fact_metrics.features.weight_store import (
    WEIGHTS,
    Format,
    find_installed,
    find_weights,
    random_weights_seed,
)


def read_weights(name: str) -> dict[str, Tensor]:
    """The tensors of an installed weight file on the CPU, its hash checked now.

    Raises MissingWeights where it is not installed, UserError where the file is damaged.
    """
    installed = find_installed(name)
    with open(installed.path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != installed.sha256:
        raise UserError(
            f"{installed.path} is damaged: sha256 {found}, expected {installed.sha256}; remove it and "
            f"`fact-eval weights fetch {name}`"
        )
    return read_file(installed.path, installed.format)


def read_file(path: Path, format: Format) -> dict[str, Tensor]:
    """The tensors of a weight file on the CPU. Raises UserError where it is not of that format."""
    if format == "torchscript":
        return read_torchscript(path)
    try:
        if format == "safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = load_torch(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # what a damaged or foreign file makes its reader raise is not documented
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is not a {format} weight file: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds {type(state).__name__}, not a state dict of tensors")
    return dict(state)


def load_weights(
    net: nn.Module,
    name: str,
    *,
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> nn.Module:
    """Fill a network from a weight file and return it; in smoke mode with seeded random values instead.

    `convert` turns the file's state dict into the network's own keys. Raises as `read_weights`, and
    UserError where the file is of another network.
    """
    seed = random_weights_seed()
    if seed is not None:
        return draw_weights(net, seed)
    state = read_weights(name)
    try:
        net.load_state_dict(convert(state) if convert else state)
    except (KeyError, RuntimeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])[:300]
        raise UserError(
            f"{find_weights(name)} holds the weights of another network than {name} "
            f"({WEIGHTS[name].origin}): {reason}"
        ) from error
    return net


@torch.no_grad()
def draw_weights(net: nn.Module, seed: int) -> nn.Module:
    """Seeded values for every tensor of a network, whatever it held, that keep activations finite.

    N(0, 2 / fan in); biases and running means 0, other vectors 1.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if tensor.ndim > 1:
            drawn = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(drawn * (2 / tensor[0].numel()) ** 0.5)
        else:
            tensor.fill_(0 if name.endswith(("bias", "running_mean", "num_batches_tracked")) else 1)
    return net
