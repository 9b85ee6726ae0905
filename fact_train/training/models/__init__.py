"""What can be trained: MODELS, one class for each value of --model, one interface (`Model`).

A model owns its networks, optimisers, averages, phases, pictures and state. It is put together from parts:
`GAN` (G, D and their losses), `Turns` (whose images meet D), `Explanation` (what holds a reconstruction to
its image). A new model is one file and one entry here.
"""

from fact_train.training.models.model import Model
from fact_train.training.models.stylegan2 import StyleGAN2
from fact_train.training.models.stylex import StylEx

MODELS: dict[str, type[Model]] = {
    "stylegan2": StyleGAN2,
    "stylex": StylEx,
}

__all__ = ["MODELS", "Model", "StylEx", "StyleGAN2"]
