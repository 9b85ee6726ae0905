"""A TorchScript VGG16 that NVIDIA's metric code can call, filled from the files that our detectors read.

Written from the calls of the metric code: `return_features` gives fc2 of images resized to 224 pixels,
`return_lpips` rows whose squared distance is LPIPS; images have the range [0, 255].
"""

import warnings
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
NUMBERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # of torchvision's convolutions
# Means and deviations of pixels in [0, 1], and those that LPIPS was trained with, in [-1, 1].
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LPIPS = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class ScriptedVGG16(nn.Module):
    def __init__(self, tensors: Mapping[str, Tensor], channel_weights: list[Tensor]) -> None:
        """`tensors` are those of torchvision's file, `channel_weights` those of LPIPS by stage."""
        super().__init__()
        inputs = 3
        self.convs = nn.ModuleList()
        for number, width in zip(NUMBERS, WIDTHS, strict=True):
            conv = nn.Conv2d(inputs, width, 3, padding=1, device="meta")
            own = {part: tensors[f"features.{number}.{part}"] for part in ("weight", "bias")}
            conv.load_state_dict(own, assign=True)
            self.convs.append(conv)
            inputs = width
        for i, number in enumerate((0, 3)):
            for part in ("weight", "bias"):
                self.register_buffer(f"fc{i}_{part}", tensors[f"classifier.{number}.{part}"])
        for i, weights in enumerate(channel_weights):
            self.register_buffer(f"lin{i}", weights.reshape(1, -1, 1, 1))
        for name, pair in (("imagenet", IMAGENET), ("lpips", LPIPS)):
            for part, values in zip(("mean", "std"), pair, strict=True):
                self.register_buffer(f"{name}_{part}", torch.tensor(values).view(1, 3, 1, 1))

    def forward(
        self,
        img: Tensor,
        resize_images: bool = True,
        return_features: bool = False,
        return_lpips: bool = False,
    ) -> Tensor:
        x = img.to(torch.float32)
        if resize_images:
            x = self.resized(x)
        if return_lpips:
            x = (x / 127.5 - 1 - self.lpips_mean) / self.lpips_std
        else:
            x = (x / 255 - self.imagenet_mean) / self.imagenet_std
        lins = [self.lin0, self.lin1, self.lin2, self.lin3, self.lin4]
        rows: list[Tensor] = []
        for i, conv in enumerate(self.convs):
            x = F.relu(conv(x))
            if i == 1 or i == 3 or i == 6 or i == 9 or i == 12:  # the ends of stages
                if return_lpips:
                    unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
                    share = lins[len(rows)] / (x.shape[2] * x.shape[3])
                    rows.append((unit * share.sqrt()).flatten(1))
                x = F.max_pool2d(x, 2)
        if return_lpips:
            return torch.cat(rows, 1)
        x = F.relu(F.linear(x.flatten(1), self.fc0_weight, self.fc0_bias))
        return F.relu(F.linear(x, self.fc1_weight, self.fc1_bias))

    def resized(self, x: Tensor) -> Tensor:
        """Bilinear to 224 pixels: pixel i reads the source at i * side / 224, as TensorFlow 1 did."""
        height, width = x.shape[2], x.shape[3]
        theta = torch.eye(2, 3, device=x.device)
        theta[0, 2] = 1.0 / width - 1.0 / 224
        theta[1, 2] = 1.0 / height - 1.0 / 224
        shape = [x.shape[0], 3, 224, 224]
        grid = F.affine_grid(theta.unsqueeze(0).repeat(x.shape[0], 1, 1), shape, align_corners=False)
        return F.grid_sample(x, grid, "bilinear", "border", align_corners=False)


def scripted_vgg16(tensors: Mapping[str, Tensor], channel_weights: list[Tensor]) -> torch.jit.ScriptModule:
    net = ScriptedVGG16(tensors, channel_weights).eval().requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; the published file stays what it is
        return torch.jit.script(net)
