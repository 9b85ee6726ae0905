"""What the feature maps of training are computed in; weights, styles, images and optimisers are float32.

fp32 is full float32, also on a GPU, where torch would use TF32 in convolutions unasked. tf32 rounds the
factors of products to 10 bits (GPU only). bf16 keeps feature maps in bfloat16 down to 4x4 pixels and up from
there: half the memory, 8 bits of mantissa. fp16 has 11 bits and ends at 65,504: demodulated convolutions
normalise weights and styles beforehand, and conv_clamp 256 is StyleGAN2-ADA's companion.
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
    return PRECISIONS[name]
