"""AttFind's effects of one 32 px image: ours, and one render per coordinate and direction, in turn.

`python -m benchmarks attfind`. The generator of the preset mnist with random weights, and the bundled
classifier of the ten digits. The other side does what the released notebook and the reproductions do: for
every coordinate and direction all layers of the generator and the classifier, one image at a time.
"""

from typing import Any

import torch
from torch import Tensor

from benchmarks.pairs import measure, ratio, start
from fact_eval.explain.effects import measure_effects
from fact_eval.explain.subject import NamedClassifier
from fact_metrics.base.memory import keep_freed_memory
from fact_metrics.base.thread_pool import ThreadPool
from fact_train.classifiers.classifier import load_classifier
from fact_train.networks.build import build_networks
from fact_train.networks.style_space import StyleSpace
from fact_train.settings.presets import PRESETS

PRESET = "mnist"
SHAPE = {"resolution": 32, "channels": 1, "classes": 10}
BATCH = 64


def run(*, seconds: float = 20.0, device: str = "auto", threads: int | None = None) -> dict[str, Any]:
    """Seconds of both, their ratio, and the largest difference of their effects."""
    chosen, about, limits = start(device, threads)
    keep_freed_memory()  # as `fact-eval explain` does; for both sides
    torch.manual_seed(0)
    G, _ = build_networks(PRESETS[PRESET].config, SHAPE, class_dim=10)
    G.eval().requires_grad_(False).to(chosen)
    classifier = NamedClassifier("mnist", *load_classifier("mnist", chosen))
    space = StyleSpace(G)
    with torch.inference_mode():
        z = torch.randn(20, *G.z_shape, device=chosen)
        styles = space.read(G.mapping(z, torch.eye(10, device=chosen).repeat(2, 1)))
        noise = [one[:1] for one in G.synthesis.draw_noise(1, torch.Generator(chosen).manual_seed(1))]
    coordinates = space.coordinates()
    moved = torch.stack([styles.amin(dim=0), styles.amax(dim=0)])[:, coordinates]

    pool = ThreadPool.of(chosen)

    @torch.inference_mode()
    def ours() -> Tensor:
        options = dict(noise=noise, batch=BATCH, pool=pool)
        return measure_effects(space, classifier.logits, styles[0], moved, coordinates, **options)

    @torch.inference_mode()
    def one_by_one() -> Tensor:
        before = classifier.logits(space.render(styles[:1], noise))
        effects = torch.zeros(2, len(coordinates), before.shape[1], device=chosen)
        for direction in range(2):
            for place, j in enumerate(coordinates.tolist()):
                edited = styles[:1].clone()
                edited[0, j] = moved[direction, place]
                effects[direction, place] = (classifier.logits(space.render(edited, noise)) - before)[0]
        return effects

    with limits, pool:
        pair = measure(ours, one_by_one, seconds=seconds)
    difference = (pair.pop("ours") - pair.pop("theirs")).abs().max().item()
    return {"setting": about, "edits": 2 * len(coordinates), "pair": pair, "difference": difference}


def table(result: dict[str, Any]) -> str:
    """Seconds and ratio, as Markdown."""
    pair = result["pair"]
    ours, peer = (sorted(pair[side])[len(pair[side]) // 2] for side in ("ours_seconds", "peer_seconds"))
    return (
        f"| effects of one image, {result['edits']} edits | seconds | one by one / ours |\n"
        "|---|---|---|\n"
        f"| ours | {ours:.3f} | |\n"
        f"| one by one | {peer:.3f} | {ratio(pair)} |\n\n"
        f"largest difference of the logits: {result['difference']:.1e}"
    )
