"""AttFind on a planted generator and classifier: found first and in order, equal to one-by-one renders."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_style_space import generator_of
from torch import nn

from fact_eval.explain import effects as effects_module
from fact_eval.explain.document import document_path, read_explanation, write_explanation
from fact_eval.explain.effects import Effects, Search, measure_effects
from fact_eval.explain.explanation import Explanation
from fact_eval.explain.selection import (
    draw_random,
    first_order_effects,
    rank_class_mean,
    select_greedy,
    select_largest,
    select_subset,
    stable_images,
)
from fact_eval.explain.subject import NamedClassifier, Subject
from fact_eval.images.sources import GeneratorSource
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.registry import compute_metric, get_spec

PLANTED = (("b8.conv1", 3, 1.0), ("b16.conv0", 6, -0.6), ("b4.conv1", 1, 0.35))


class PlantedSpace:
    """A StyleSpace whose image shows its coordinates as pixels, so that a classifier can weigh them."""

    def __init__(self, space):
        self._space = space
        self.layers, self.size = space.layers, space.size
        self.read, self.layer_of, self.coordinate = space.read, space.layer_of, space.coordinate
        self.coordinates = space.coordinates

    def render(self, styles, noise=None):
        side = 16
        pixels = torch.zeros(len(styles), side * side)
        pixels[:, : styles.shape[1]] = 0.05 * styles
        return pixels.reshape(-1, 1, side, side)

    def edits(self, styles, noise=None):
        space = self

        class Edits:
            image = space.render(styles[None])

            def render(self, layer, edited):
                all_styles = styles.repeat(len(edited), 1)
                all_styles[:, layer.start : layer.stop] = edited
                return space.render(all_styles)

        return Edits()


class PlantedClassifier(nn.Module):
    """Two classes; logit 1 less logit 0 is a weighted sum of the planted coordinates."""

    def __init__(self, space, offset):
        super().__init__()
        weight = torch.zeros(16 * 16)
        for layer, index, w in PLANTED:
            weight[space.coordinate(layer, index)] = w / 0.05
        self.weight, self.offset = nn.Parameter(weight), offset

    def forward(self, images):
        margin = images.flatten(1) @ self.weight - self.offset
        return torch.stack([-margin / 2, margin / 2], dim=1)


CARD = {
    "classes": [{"name": "low", "labels": [0]}, {"name": "high", "labels": [1]}],
    "weights_sha256": "p" * 64,
    "arch": "convnet",
    "channels": 1,
    "input_size": None,
}


def source_of(G, *, seed=0):
    snapshot = SimpleNamespace(G=G, C=None, D=None, E=None, sha256="5" * 64, path=SimpleNamespace(name="s"))
    return GeneratorSource(snapshot, seed=seed)


def planted(**options):
    """A subject whose styles are those of a real generator, its space and classifier planted."""
    G = generator_of(noise="off")
    source = source_of(G)
    subject = Subject(source, NamedClassifier("planted", None, CARD), batch=16)
    subject.space = PlantedSpace(subject.space)
    styles = subject.styles(range(64))
    margins = sum(w * styles[:, subject.space.coordinate(layer, i)] for layer, i, w in PLANTED)
    net = PlantedClassifier(subject.space, margins.median().item())
    subject.classifier = NamedClassifier("planted", net, CARD)
    return Explanation(subject, **options)


@pytest.fixture
def explanation(tmp_path):
    return planted(count=24, root=tmp_path)


def expected_order(explanation, target):
    """Planted coordinates by mean effect: |w| times the mean distance to the better extreme."""
    sign = 1 if target == 1 else -1
    rows = explanation.searched.predicted != target
    found = []
    for layer, index, w in PLANTED:
        j = explanation.subject.space.coordinate(layer, index)
        own = explanation.searched.styles[:, j]
        direction = 1 if sign * w > 0 else -1
        extreme = own.max() if direction > 0 else own.min()
        found.append((abs(w) * (extreme - own[rows]).abs().mean().item(), layer, index, direction))
    return [(layer, index, direction) for _, layer, index, direction in sorted(found, reverse=True)]


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("method", ["attfind-greedy", "gradient"])
def test_planted_attributes_are_found_first_and_in_order(explanation, target, method) -> None:
    """A linear classifier: the first-order effect is the whole effect."""
    document = explanation.document(run_id="toy")
    found = [(one.layer, one.index, one.direction) for one in document.attributes(method, target)[:3]]
    if method == "attfind-greedy":  # the second step looks at images that the first one left unexplained
        assert set(found) == set(expected_order(explanation, target))
        assert found[0] == expected_order(explanation, target)[0]
    else:
        assert found == expected_order(explanation, target)
    assert document.attributes(method, target)[0].by == "planted"


def test_planted_attributes_flip_and_random_ones_do_not(explanation) -> None:
    inputs = SimpleNamespace(explanation=explanation, seed=0, device=torch.device("cpu"))
    values = {
        method: compute_metric(get_spec(f"flips24_{method}"), inputs)
        for method in ("attfind_greedy", "attfind_independent", "attfind_subset", "random")
    }
    for method in ("attfind_greedy", "attfind_independent", "attfind_subset"):
        assert values[method].value == 1.0, method
    assert values["random"].value < 0.4
    curve = [point["value"] for point in values["attfind_greedy"].extras["curve"]]
    assert len(curve) == 10 and curve == sorted(curve) and curve[0] > values["random"].value


def test_edits_do_not_judge_the_images_of_the_search(explanation) -> None:
    assert not set(explanation.searched.indices) & set(explanation.judged.indices)
    for images in (explanation.searched, explanation.judged):
        assert images.predicted.bincount().tolist() == [12, 12]


@pytest.mark.parametrize("options", [{}, {"injection": "adain"}, {"architecture": "resnet"}], ids=str)
def test_effects_equal_rendering_one_by_one(options) -> None:
    """A real synthesis network and a random convnet; 1e-5 of the largest logit."""
    G = generator_of(**{"noise": "random", **options})
    source = source_of(G)
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 3)).eval()
    classifier = NamedClassifier("net", net, CARD)
    space = Subject(source, classifier).space
    ws = source.mapping(source.latents(range(5)), None)
    styles, noise = space.read(ws), source.noise(range(2, 3))
    search = SimpleNamespace(styles=styles, indices=range(5))
    search = Search.over(search, space.coordinates())
    moved = search.moved(styles[2:3])[0]
    with torch.inference_mode():
        fast = measure_effects(
            space, classifier.logits, styles[2], moved, search.coordinates, noise=noise, batch=7
        )
        before = classifier.logits(G.synthesis(ws[2:3], noise_inputs=noise))
        slow = torch.zeros_like(fast)
        for d in range(2):
            for place, j in enumerate(search.coordinates.tolist()):
                edited = styles[2:3].clone()
                edited[0, j] = (styles[:, j].amin(), styles[:, j].amax())[d]
                slow[d, place] = (classifier.logits(space.render(edited, noise)) - before)[0]
    assert slow.abs().max() > 1e-2
    assert (fast - slow).abs().max() <= 1e-5 * max(1.0, float(before.abs().max()))


def test_a_killed_search_goes_on_where_it_stopped(tmp_path, monkeypatch) -> None:
    calls = []
    measured = effects_module.measure_effects

    def counted(*args, **options):
        calls.append(1)
        return measured(*args, **options)

    monkeypatch.setattr(effects_module, "measure_effects", counted)
    code = (
        "import sys, os; sys.path[:0] = sys.argv[2:]\n"
        "from test_attfind import planted, effects_module\n"
        "real, calls = effects_module.measure_effects, []\n"
        "def dying(*args, **options):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 20: os.kill(os.getpid(), 9)\n"
        "    return real(*args, **options)\n"
        "effects_module.measure_effects = dying\n"
        "from pathlib import Path\n"
        "planted(count=24, root=Path(sys.argv[1])).methods\n"
    )
    tests = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), tests], capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    resumed = planted(count=24, root=tmp_path)
    resumed.effects.compute()
    assert len(calls) == 24 - 16  # two chunks of 8 were complete
    fresh = planted(count=24, root=tmp_path / "fresh")
    fresh.effects.compute()
    assert torch.equal(fresh.effects.on_class(1), resumed.effects.on_class(1))


def test_effects_of_another_classifier_are_another_entry(explanation, tmp_path) -> None:
    explanation.effects.compute()
    card = {**CARD, "weights_sha256": "q" * 64}
    other = dataclasses.replace(explanation.subject.classifier, card=card)
    with pytest.raises(ValueError, match="chunk 0 of the effects is missing"):
        Effects(explanation.subject, other, explanation.search, root=tmp_path).on_class(0)


def test_missing_effects_of_a_share_are_those_of_the_other_ranks(explanation) -> None:
    explanation.compute_share(SimpleNamespace(rank=1, size=3))
    assert [bool(explanation.effects._read(number)) for number in range(3)] == [False, True, False]


# Selections against hand-made effects


def test_greedy_looks_at_images_that_are_not_yet_explained() -> None:
    """Attribute 0 explains the first two images at once; of the third, attribute 2 is the best."""
    effects = torch.zeros(3, 2, 4)
    effects[:2, 1, 0] = 5.0
    effects[:2, 0, 1] = 4.0  # second best by its mean, but of explained images only
    effects[2, 1, 2] = 1.0
    enough = torch.tensor([3.0, 3.0, 3.0])
    assert select_greedy(effects, enough=enough, count=2) == [(1, 0), (1, 2)]
    endless = torch.full([3], float("inf"))
    assert select_greedy(effects, enough=endless, count=2) == [(1, 0), (0, 1)]
    rejected = lambda one: one == (1, 0)  # noqa: E731
    assert select_greedy(effects, enough=enough, count=1, rejected=rejected) == [(0, 1)]


def test_no_selection_takes_both_directions_of_a_coordinate() -> None:
    effects = torch.rand(5, 2, 12, generator=torch.Generator().manual_seed(0))
    for chosen in (
        select_greedy(effects, enough=torch.ones(5)),
        select_largest(effects[0]),
        select_subset(effects[0], lambda sets: torch.rand(len(sets))),
        draw_random(12, seed=1),
    ):
        assert len(chosen) == 10 and len({place for _, place in chosen}) == 10


def test_negative_effects_do_not_make_up_for_positive_ones() -> None:
    effects = torch.zeros(2, 2, 2)
    effects[0, 0, 0], effects[1, 0, 0] = 3.0, -3.0
    effects[:, 0, 1] = 1.0
    assert select_greedy(effects, enough=torch.full([2], 9.0), count=1) == [(0, 0)]


def test_subset_selection_measures_attributes_together() -> None:
    """Two attributes that are the largest by themselves and cancel each other are not both taken."""
    effects = torch.zeros(2, 4)
    effects[1] = torch.tensor([3.0, 2.9, 1.0, 0.5])

    def joint(sets):
        cancelled = [3 * ({0, 1} <= {place for _, place in one}) for one in sets]
        sums = [sum(float(effects[attribute]) for attribute in one) for one in sets]
        return torch.tensor(sums) - torch.tensor(cancelled)

    assert select_subset(effects, joint, count=2) == [(1, 0), (1, 2)]


def test_unstable_images_are_left_out_unless_all_are() -> None:
    assert stable_images(torch.tensor([0, 41, 42]), 1000).tolist() == [True, True, False]
    assert stable_images(torch.tensor([99, 99]), 1000).tolist() == [True, True]


def test_class_mean_ranks_the_coordinate_that_tells_the_class() -> None:
    rng = torch.Generator().manual_seed(0)
    styles = torch.randn(200, 6, generator=rng)
    predicted = (torch.arange(200) % 2).long()
    styles[predicted == 1, 4] -= 3
    scores = rank_class_mean(styles, predicted, torch.ones(200), 1)
    assert select_largest(scores, count=1) == [(0, 4)]
    assert select_largest(rank_class_mean(styles, predicted, torch.ones(200), 0), count=1) == [(1, 4)]


def test_gradient_scores_are_first_order_effects() -> None:
    gradients = torch.tensor([[2.0, -1.0]])
    distances = torch.tensor([[[-1.0, -3.0], [0.5, 1.0]]])
    assert first_order_effects(gradients, distances).tolist() == [[[0.0, 3.0], [1.0, 0.0]]]


# The document and what is refused


def test_the_document_is_read_as_it_was_written(explanation, tmp_path) -> None:
    document = explanation.document(run_id="toy")
    document.snapshot = "network-snapshot-000004.safetensors"
    path = write_explanation(tmp_path, document)
    assert path == document_path(tmp_path, document.snapshot)
    assert path.parent.name == "network-snapshot-000004"
    assert read_explanation(path) == document
    first = document.attributes("attfind-greedy", 1)[0]
    j = explanation.subject.space.coordinate(first.layer, first.index)
    own = explanation.searched.styles[explanation.searched.predicted == 0][:, j]
    assert first.size == pytest.approx((first.target - own).abs().mean().item(), rel=1e-5)
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 7'))
    with pytest.raises(UserError, match="schema 7"):
        read_explanation(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_explanation(tmp_path / "none.json")


def test_too_few_images_are_refused() -> None:
    with pytest.raises(UsageError, match="6 images for 2 classes; give 8 or more"):
        planted(count=6)


def test_a_class_that_no_image_has_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match="assigns 0 of 320 images of s to class"):
        G = generator_of(noise="off")
        subject = Subject(source_of(G), NamedClassifier("planted", None, CARD), batch=16)
        subject.space = PlantedSpace(subject.space)
        subject.classifier = NamedClassifier("planted", PlantedClassifier(subject.space, -1e9), CARD)
        Explanation(subject, count=8)
