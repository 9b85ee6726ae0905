"""A snapshot's generator as an ONNX graph, which onnxruntime must compute as torch does before it is written.

Inputs `z` and, of a conditional generator, `c`; output `images` [N, C, H, W], float32 in about [-1, 1]. Noise
inputs are the constant ones. Styles scale activations (unfused): the batch then stays free.
"""

import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from fact_metrics.base.atomic import write_atomically
from fact_metrics.base.errors import UserError
from fact_metrics.base.extras import need
from fact_train.snapshot import Snapshot

OPSET = 17
TOLERANCE = 1e-4  # of images, or of their largest value above 1
CHECKED_BATCHES = (1, 3)


class _Graph(nn.Module):
    def __init__(self, snapshot: Snapshot, psi: float):
        super().__init__()
        self.G, self.psi = snapshot.G, psi
        self.noise = "off" if snapshot.G.synthesis.noise == "off" else "const"

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return self.G(z, c, self.psi, noise_mode=self.noise, fused_modconv=False)

    def as_scored(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The same images in the evaluation order of the network."""
        return self.G(z, c, self.psi, noise_mode=self.noise)


def export_onnx(snapshot: Snapshot, out: Path, *, psi: float = 1.0) -> float:
    """Write the generator of a snapshot on the CPU; returns the largest difference to torch.

    UsageError without the packages of the extra `onnx`. UserError, and no file, if onnxruntime computes
    other images.
    """
    onnx, runtime = (need(name, "onnx", f"--out {out}") for name in ("onnx", "onnxruntime"))
    graph = _Graph(snapshot, psi).eval()
    name = snapshot.path.name
    try:
        content = _trace(onnx, graph, snapshot)
        difference = _largest_difference(runtime, content, graph, snapshot)
    except Exception as error:  # the exceptions of exporter and runtime share no class
        injection, reason = snapshot.config["injection"], " ".join(str(error).split())[:200]
        raise UserError(f"{name} (--injection {injection}) has no ONNX form: {reason}") from error
    if not difference <= TOLERANCE:
        raise UserError(
            f"{name}: onnxruntime computes images that differ from torch by {difference:.2g}, "
            f"more than {TOLERANCE:g}; nothing was written"
        )
    write_atomically(out, lambda partial: partial.write_bytes(content) and None)
    return difference


def _trace(onnx, graph: _Graph, snapshot: Snapshot) -> bytes:
    """The graph with a free batch, and what made it in its metadata."""
    inputs = _inputs(snapshot, 2)
    file = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shapes that become constants: other batches are checked
        torch.onnx.export(
            graph,
            tuple(inputs.values()),
            file,
            dynamo=False,  # the other exporter fixes the batch, and takes minutes
            opset_version=OPSET,
            input_names=[*inputs],
            output_names=["images"],
            dynamic_axes={name: {0: "batch"} for name in (*inputs, "images")},
        )
    model = onnx.load_from_string(file.getvalue())
    about = {
        "snapshot": snapshot.path.name,
        "snapshot_sha256": snapshot.sha256,
        "truncation_psi": f"{graph.psi:g}",
        "noise": graph.noise,
    }
    onnx.helper.set_model_props(model, about)
    return model.SerializeToString()


def _inputs(snapshot: Snapshot, n: int) -> dict[str, Tensor]:
    """Latents and labels of a fixed seed, by the names of the graph's inputs."""
    gen = torch.Generator().manual_seed(n)
    z, classes = torch.randn(n, *snapshot.G.z_shape, generator=gen), snapshot.G.c_dim
    if not classes:
        return {"z": z}
    drawn = torch.randint(classes, (n,), generator=gen)
    return {"z": z, "c": nn.functional.one_hot(drawn, classes).float()}


@torch.no_grad()
def _largest_difference(runtime, content: bytes, graph: _Graph, snapshot: Snapshot) -> float:
    """Of images by onnxruntime and by torch, relative to values above 1."""
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4  # an error arrives as an exception
    session = runtime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    largest = 0.0
    for n in CHECKED_BATCHES:
        inputs = _inputs(snapshot, n)
        (made,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        expected = graph.as_scored(*inputs.values())
        scale = max(1.0, float(expected.abs().max()))
        largest = max(largest, float((torch.from_numpy(made) - expected).abs().max()) / scale)
    return largest
