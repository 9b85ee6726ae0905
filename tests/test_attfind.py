"""AttFind on a planted generator and classifier: found first and in order, equal to one-by-one renders."""

import dataclasses
import json
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
from fact_metrics.base.thread_pool import ThreadPool
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

            def prepare(self, layer):
                pass

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
        options = dict(noise=noise, batch=7)
        fast = measure_effects(space, classifier.logits, styles[2], moved, search.coordinates, **options)
        with ThreadPool(2, threads=2) as options["pool"]:
            side = measure_effects(space, classifier.logits, styles[2], moved, search.coordinates, **options)
        before = classifier.logits(G.synthesis(ws[2:3], noise_inputs=noise))
        slow = torch.zeros_like(fast)
        for d in range(2):
            for place, j in enumerate(search.coordinates.tolist()):
                edited = styles[2:3].clone()
                edited[0, j] = (styles[:, j].amin(), styles[:, j].amax())[d]
                slow[d, place] = (classifier.logits(space.render(edited, noise)) - before)[0]
    assert slow.abs().max() > 1e-2
    torch.testing.assert_close(side, fast, atol=1e-6, rtol=0)  # torch's own threads may split sums
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
    path = write_explanation(tmp_path, document, explanation.subject.question)
    assert path == document_path(tmp_path, document.snapshot, explanation.subject.question)
    assert path.parent.parent.name == "network-snapshot-000004"
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


ATTRIBUTE = dict(layer="b4.conv1", index=3, direction=1, size=0.5, effect=1.0, by="c", target=2.0)
LIST = dict(method="random", class_index=0, attributes=[ATTRIBUTE])
GOOD = dict(
    schema=1,
    run_id="toy-seed0",
    snapshot="network-snapshot-000004.safetensors",
    snapshot_sha256="0" * 64,
    classifier=dict(name="c", sha256="1" * 64, classes=["a", "b"]),
    images=dict(kind="generated", count=2, seed=0, indices=[0, 1], predicted=[0, 1], judged=[2]),
    shift=1.0,
    found=[LIST],
)


def attribute(**changes):
    return {"found": [{**LIST, "attributes": [{**ATTRIBUTE, **changes}]}]}


def images(**changes):
    return {"images": {**GOOD["images"], **changes}}


HOSTILE = [
    ({"run_id": "../../etc/passwd"}, "run_id '../../etc/passwd' cannot name a file"),
    ({"run_id": 5}, "run_id: expected str, got int"),
    ({"snapshot": "/elsewhere/x.safetensors"}, "snapshot .* cannot name a file"),
    ({"snapshot": "a\nb"}, "snapshot .* cannot name a file"),
    ({"schema": "1"}, "schema: expected int"),
    ({"shift": 0}, "shift is 0; an edit has a length above 0"),
    ({"shift": -1.0}, "shift is -1"),
    ({"shift": 1e300}, r"shift is 1e\+300"),
    ({"classifier": {**GOOD["classifier"], "classes": "ab"}}, "classifier.classes: expected array"),
    ({"classifier": {**GOOD["classifier"], "classes": []}}, "class 0 is none of 0"),
    (images(predicted=[0, 2]), "class 2 is none of 2"),
    (images(predicted=[0]), "2 images with 2 indices and 1 classes"),
    (images(count=10**9), "1000000000 images with 2 indices"),
    (images(seed=-1), "seed is -1"),
    (images(seed=10**30), "seed"),
    (images(indices=[0, -1]), "image index is -1"),
    (images(judged=[10**7]), "image index is 10000000"),
    (images(judged=[0] * 100_001), "100,001 images, at most 100,000"),
    (images(kind="stolen"), "images.kind: invalid enum value 'stolen'"),
    ({"found": {}}, "found: expected array"),
    ({"found": [LIST, LIST]}, "a method has two lists of one class"),
    ({"found": [{**LIST, "method": "<script>"}]}, "invalid enum value '<script>'"),
    ({"found": [{**LIST, "class_index": -1}]}, "class -1 is none of 2"),
    ({"found": [{**LIST, "attributes": [ATTRIBUTE] * 101}]}, "a list of 101 attributes, at most 100"),
    (attribute(index=-1), "index is -1"),
    (attribute(index=1.5), "index: expected int, got float"),
    (attribute(direction=0), "direction: invalid enum value 0"),
    (attribute(target=1e30), r"target is 1e\+30, beyond 1e\+06"),
    (attribute(effect="NaN"), "effect: expected float, got str"),
    (attribute(layer=None), "layer: expected str, got null"),
]


@pytest.mark.parametrize(("changes", "message"), HOSTILE, ids=[message[:40] for _, message in HOSTILE])
def test_a_hostile_document_is_one_line_with_the_field(tmp_path, changes, message) -> None:
    path = tmp_path / "attributes.json"
    path.write_text(json.dumps(GOOD))
    assert read_explanation(path).found[0].attributes[0].target == 2.0
    path.write_text(json.dumps({**GOOD, **changes}))
    with pytest.raises(UserError, match=message) as error:
        read_explanation(path)
    assert str(path) in str(error.value) and "run `fact-eval explain` again" in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300 + len(str(path))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(tmp_path, number) -> None:
    path = tmp_path / "attributes.json"
    path.write_text(json.dumps(GOOD).replace("1.0", number))
    with pytest.raises(UserError, match=r"attributes.json cannot be read \((JSON is malformed|.*number out)"):
        read_explanation(path)


def test_a_document_without_end_is_read_up_to_the_limit(tmp_path) -> None:
    path = tmp_path / "attributes.json"
    with open(path, "wb") as file:
        file.truncate(1 << 40)  # sparse: reading all of it would end the process
    with pytest.raises(UserError, match=r"JSON text of 16.0 MiB, at most 16.0 MiB are read"):
        read_explanation(path)


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
