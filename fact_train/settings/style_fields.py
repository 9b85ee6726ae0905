"""Fields of configurations that inject style vectors or a style matrix, for presets of any dataset."""

from typing import Any

EXPERIMENTS = (
    "unpublished experiments at 32 px on AFHQ cats (not reproduced), yohan-pg/stylegan2-ada-pytorch @366721a"
)


def vectors(k: int) -> dict[str, Any]:
    """K style vectors. From 2 on, training uses fused weights too, which is faster from 4 on."""
    return dict(injection="vectors", style_vectors=k, fused_modconv="eval" if k == 1 else "always")


def matrix(rows: int, **fields: Any) -> dict[str, Any]:
    """A centred style matrix with composite demodulation, unbaked: cheaper below O k^2 pixels."""
    return dict(injection="matrix", style_vectors=rows, fused_modconv="never", matrix_centre=True, **fields)


# The style matrices of the unpublished experiments: end of the name -> summary, fields.
MATRICES = {
    "": ("divided by sqrt(I), plus the identity", dict(matrix_scale="rsqrt", matrix_identity=True)),
    "-mul": ("multiplied by sqrt(I), plus the identity", dict(matrix_scale="sqrt", matrix_identity=True)),
    "-unscaled": ("plus the identity", dict(matrix_identity=True)),
    "-centred": ("without the identity, so that its scale cancels", {}),
    "-rows": ("rows of length 1, without the identity", dict(matrix_normalise=True)),
}
