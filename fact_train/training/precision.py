"""The precision of feature maps in training; weights, styles, images and optimisers are float32.

fp32 is full float32, also on a GPU, where torch uses TF32 in convolutions by default. tf32 rounds the factors
of products to 10 bits (GPU only). bf16 holds feature maps in bfloat16 at all resolutions: half the memory, 8
bits of mantissa. fp16 has 11 bits and ends at 65,504; demodulated convolutions normalise weights and styles
beforehand, and StyleGAN2-ADA combines it with conv_clamp 256.
"""

import torch

from fact_metrics.base.errors import UsageError

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def set_precision(name: str, device: torch.device) -> torch.dtype:
    """Allow or forbid TF32 in this process; returns the dtype of feature maps.

    UsageError for tf32 without a GPU.
    """
    if name == "tf32" and device.type != "cuda":
        raise UsageError(f"--precision tf32: {device.type} has no TF32; use fp32 or bf16, or --device cuda.")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    torch.backends.cudnn.deterministic = True  # sums in a fixed order: a resumed run is bitwise equal
    return PRECISIONS[name]
