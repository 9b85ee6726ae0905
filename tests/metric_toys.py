"""Stand-ins for what fact_eval gives a metric: features, a linear generator, a detector without weights.

`compute_metric` hands them to metrics, so they refuse what a spec does not declare, as in production.
"""

import torch
import torch.nn.functional as F

from fact_metrics.family import Family, Source
from fact_metrics.features import Detector
from fact_metrics.inputs import EncodedPairs
from fact_metrics.registry import register


class ToyInputs:
    """MetricInputs over features made by `make(need)`; `generator` may be a ToyGenerator."""

    def __init__(self, make=None, *, generator=None, encoder=None, training=None, seed=0):
        self.make, self.generator, self.encoder, self.training = make, generator, encoder, training
        self.seed, self.device = seed, torch.device("cpu")

    def features(self, need):
        return self.make(need)

    def cached_real(self, need, name, function):
        return function(self.make(need))

    def statistics(self, need, *, correction):
        return None


def toy_metric(*, higher_is_better=False, needs=(), settings=None, difference=None, **fields):
    """Decorator that registers `compute(inputs)` as a metric of one name, its own."""

    def add(compute):
        name = compute.__name__
        register(
            Family(
                name=name,
                summary=compute.__doc__,
                higher_is_better=higher_is_better,
                source=Source("none", "none"),
                compute=lambda spec, inputs: compute(inputs),
                scored=None,
                needs=lambda choice: tuple(needs),
                settings=lambda choice: settings or {},
                difference=difference and (lambda spec, *sides: difference(*sides)),
                minimum=1,
                published={name: f"{name}1"},
                listed=(name,),
                **fields,
            )
        )
        return compute

    return add


class ToyGenerator:
    """GeneratorInputs whose images are `steepness` * (w as 2x2 pixels, enlarged) + `loudness` * noise.

    Unfused images are off by `defect` in every pixel; the calls and their inputs are kept.
    """

    z_dim, num_ws, resolution, num_channels = 4, 2, 32, 1

    def __init__(self, *, steepness=0.3, defect=0.0, loudness=0.05):
        self.steepness, self.defect, self.loudness = steepness, defect, loudness
        self.fused, self.noises, self.reported = [], [], []

    def latents(self, indices, *, stream="image"):
        salt = 0 if stream == "image" else 7_000_000
        return torch.stack(
            [torch.randn(4, generator=torch.Generator().manual_seed(i + salt)) for i in indices]
        )

    def labels(self, indices):
        return None

    def mapping(self, z, c):
        return z.unsqueeze(1).expand(-1, self.num_ws, -1)

    def noise(self, indices, *, stream="image"):
        rows = [
            torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(i + 9_000_000)) for i in indices
        ]
        return [torch.stack(rows)]

    def synthesis(self, ws, noise, *, fused_modconv=None):
        self.fused.append(fused_modconv)
        self.noises.append(noise[0])
        images = F.interpolate(ws[:, 0].reshape(-1, 1, 2, 2), size=(32, 32), mode="bilinear") * self.steepness
        images = images + self.loudness * noise[0]
        return images + self.defect * images.sign() if fused_modconv is False else images

    def progress(self, done, total):
        self.reported.append((done, total))


class ToyEncoder:
    """EncoderInputs whose reconstructions, logits and w are off by `defect`: 0 is a perfect encoder."""

    def __init__(self, defect):
        self.defect = defect

    def pairs(self, count):
        rng = torch.Generator().manual_seed(3)
        images = torch.randint(60, 200, (200, 1, 32, 32), generator=rng).float()
        noise = torch.randn(images.shape, generator=rng) * 50 * self.defect
        logits = torch.randn(200, 4, generator=rng)
        return EncodedPairs(
            images.to(torch.uint8),
            (images + noise).clamp(0, 255).to(torch.uint8),
            self.mapping_w(count) + 3 * self.defect,
            logits,
            logits + 3 * self.defect * torch.randn(200, 4, generator=rng),
        )

    def mapping_w(self, count):
        return cloud(200, 6, seed=4)


class MeanSquares(Detector):
    """A detector whose distance is the mean squared difference and whose features are 4x4 mean pixels."""

    name = "mean_squares"
    width = 16

    def settings(self):
        return {}

    def embed(self, images):
        return F.adaptive_avg_pool2d(images[:, :1].float() / 255, 4).flatten(1)

    def distance(self, a, b):
        return (a - b).square().flatten(1).mean(dim=1)


def cloud(n, width, *, seed, shift=0.0, scale=1.0):
    """Normal features [n, width]."""
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed)) * scale + shift


def squared_distances(a, b):
    """All squared distances [N, M] in float64, by definition."""
    return torch.stack([(row.double() - b.double()).square().sum(dim=1) for row in a])
