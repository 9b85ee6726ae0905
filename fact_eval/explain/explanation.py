"""One explanation: the search, the lists of attributes, their edits, and the document; for the metrics.

It implements `ExplanationInputs`. Everything follows from the subject, the evaluation seed and the options.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from fact_eval.explain.document import (
    SCHEMA,
    AttributeShape,
    ClassifierShape,
    ExplanationShape,
    FoundShape,
    ImagesShape,
)
from fact_eval.explain.effects import DIRECTIONS, Effects, Search
from fact_eval.explain.filters import DiscriminatorFilter
from fact_eval.explain.methods import CONTROL_IMAGES, GLOBAL, ONE_BY_ONE, SINGLE, Methods, edited
from fact_eval.explain.selection import COUNT, Attribute, select_greedy
from fact_eval.explain.subject import Images, NamedClassifier, Subject
from fact_metrics.base.pixels import to_uint8
from fact_metrics.base.processes import Processes
from fact_metrics.base.progress import Progress
from fact_metrics.inputs import Counterfactuals
from fact_train.data.pixels import allocate_images

TARGETS = 2  # classes that every image is edited towards, at most
CONTROL = "control"
SINGLE_IN_DOCUMENT = 20  # images whose own lists the document holds


class Explanation:
    """What the methods find in a subject, and what their edits do.

    `second` is an independently trained classifier with the same classes, or None. The document has the
    `methods`.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        count: int,
        second: NamedClassifier | None = None,
        methods: Sequence[str] = (*GLOBAL, *SINGLE),
        shift: float = 1.0,
        largest_d_change: float | None = None,
        batch: int = 64,
        root: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.subject, self.second, self.batch, self._root = subject, second, batch, root
        self._documented = methods
        self.seed, self.progress = subject.generator.seed, progress or Progress(quiet=True)
        self.searched, self.judged = subject.choose(count)
        coordinates = subject.space.coordinates()
        self.search = Search.over(self.searched, coordinates, shift=shift)
        self.effects = self._effects(subject.classifier, self.search)
        self._filter = None
        if largest_d_change is not None:
            self._filter = DiscriminatorFilter(subject, self.search, most=largest_d_change)
        self._counterfactuals: dict[str, Counterfactuals] = {}

    @property
    def classes(self) -> Sequence[str]:
        return self.subject.classifier.classes

    def logits(self, images: Tensor) -> Tensor:
        """Logits [N, K] of the explained classifier, of float images on any device, on the CPU."""
        parts = images.to(self.subject.generator.device).split(self.batch)
        return torch.cat([self.subject.classifier.logits(part).cpu() for part in parts])

    def compute_share(self, processes: Processes) -> None:
        """This rank's part of the effects of the search; rank 0 reads those of all ranks from the store."""
        self.effects.compute(range(processes.rank, self.effects.chunks, processes.size))

    @cached_property
    def methods(self) -> Methods:
        """The methods, after the effects are computed."""
        self.effects.compute()
        return Methods(self.subject, self.effects, seed=self.seed, rejected=self._filter)

    @cached_property
    def lists(self) -> dict[int, dict[str, list[Attribute]]]:
        """By target class and method: the attributes of the methods with one list for all images."""
        lists = {}
        for target in self.subject.wanted:
            known = self.methods.of_class(target)
            lists[target] = {method: self.methods.find(known, method) for method in GLOBAL}
        return lists

    @cached_property
    def single_lists(self) -> dict[tuple[int, int], dict[str, list[Attribute]]]:
        """By row of the search, target and method: the attributes of the methods that explain one image."""
        pairs = [(row, target) for row, target in self._pairs(self.searched) if row < ONE_BY_ONE]
        found: dict[tuple[int, int], dict[str, list[Attribute]]] = {}
        with self.progress.stage("attributes of single images", len(pairs)) as stage:
            for target in self.subject.wanted:
                known = self.methods.of_class(target)
                for row, _ in (pair for pair in pairs if pair[1] == target):
                    if row in known.rows.tolist():
                        joint = self._joint(row, target)
                        found[row, target] = self.methods.find_single(known, row, joint)
                    stage.update(len(found))
        return dict(sorted(found.items()))

    @cached_property
    def control_lists(self) -> dict[int, list[Attribute]]:
        """By target class: AttFind's greedy attributes for the architecture with random weights.

        Classes of the images are still those of the explained classifier: a random one has one class.
        """
        some = Images(
            self.searched.indices[:CONTROL_IMAGES],
            self.searched.styles[:CONTROL_IMAGES],
            self.searched.logits[:CONTROL_IMAGES],
        )
        search = Search(some, self.search.coordinates, self.search.targets, self.search.shift)
        effects = self._effects(self.subject.classifier.randomised(self.seed), search)
        effects.compute()
        methods = Methods(self.subject, effects, seed=self.seed)
        lists = {}
        for target in self.subject.wanted:
            known = methods.of_class(target)
            # The margins are of another classifier: the largest mean effects, without the greedy stop.
            endless = torch.full([len(known.effects)], float("inf"), dtype=torch.float64)
            lists[target] = select_greedy(known.effects, enough=endless)
        return lists

    def counterfactuals(self, method: str) -> Counterfactuals:
        """Edits of a method or of the control; those of the last method are kept, since they are large."""
        if method not in self._counterfactuals:
            self._counterfactuals = {method: self._edit(method)}
        return self._counterfactuals[method]

    @property
    def attribute_count(self) -> int:
        """How many attributes the methods choose from: two directions of every coordinate."""
        return self.search.targets.numel()

    def halves(self, method: str, splits: int) -> list[list[list[Attribute]]]:
        """By class: the attributes from both halves of random splits, equally many images of each class."""
        predicted = self.searched.predicted
        generator = torch.Generator().manual_seed(self.seed)
        own = [(predicted == k).nonzero().flatten() for k in predicted.unique().tolist()]
        parts = []
        for _ in range(splits):
            mixed = [rows[torch.randperm(len(rows), generator=generator)] for rows in own]
            parts += [torch.cat([rows[half::2] for rows in mixed]).sort().values for half in (0, 1)]
        found = []
        for target in self.subject.wanted:
            known = self.methods.of_class(target)
            found.append(
                [
                    self.methods.find(known, method, within=part, draw=draw)
                    for draw, part in enumerate(parts, start=1)
                ]
            )
        return found

    @cached_property
    def _drawn(self) -> dict[str, list[Tensor]]:
        return {"w": [], "s": [], "logits": []}

    @torch.inference_mode()
    def latents(self, space: str, count: int) -> tuple[Tensor, Tensor]:
        """w or styles of the first generated images, and their logits; w without a class part."""
        source, drawn = self.subject.generator, self._drawn
        have = sum(map(len, drawn["logits"]))
        with self.progress.stage("generated images", count, patience=2.0) as stage:
            for start in range(have, count, self.batch):
                indices = range(start, min(start + self.batch, count))
                ws = source.mapping(source.latents(indices), source.labels(indices))
                styles = self.subject.space.read(ws)
                pictures = self.subject.space.render(styles, source.noise(indices))
                drawn["w"].append(ws[:, 0, : source.G.w_dim].cpu())
                drawn["s"].append(styles.cpu())
                drawn["logits"].append(self.logits(pictures))
                stage.update(indices.stop)
        return torch.cat(drawn[space])[:count], torch.cat(drawn["logits"])[:count]

    @torch.inference_mode()
    def cycles(self, counts: Sequence[int]) -> dict[int, Tensor] | None:
        """Pictures that judge, after so many passes through encoder and generator. None: no encoder."""
        subject = self.subject
        if subject.pictures is None:
            return None
        indices = self.judged.indices
        pictures = {0: subject.pictures.images(indices).cpu()}
        current = pictures[0]
        for number in range(1, max(counts) + 1):
            parts = current.split(self.batch)
            styles = [
                subject.space.read(subject.generator.snapshot.reconstruction_ws(part)) for part in parts
            ]
            current = to_uint8(subject.render(torch.cat(styles), indices)).cpu()
            pictures[number] = current
        return {number: pictures[number] for number in counts}

    @torch.inference_mode()
    def _edit(self, method: str) -> Counterfactuals:
        images, plan = self._plan(method)
        rows = torch.tensor([row for row, _, _ in plan])
        targets = torch.tensor([target for _, target, _ in plan])
        indices = [images.indices[row] for row in rows.tolist()]
        moved = self.search.moved(images.styles)
        afters, seconds = [], []
        before = self.subject.render(images.styles[rows], indices)
        unedited = to_uint8(before).cpu()
        edits = torch.from_numpy(allocate_images((len(plan) * COUNT, *unedited.shape[1:])))
        edits = edits.unflatten(0, (len(plan), COUNT))
        with self.progress.stage(f"edits of {method}", COUNT * len(plan)) as stage:
            for k in range(1, COUNT + 1):
                styles = torch.stack(
                    [
                        edited(images.styles[row], moved[row], self.search.coordinates, attributes[:k])
                        for row, _, attributes in plan
                    ]
                )
                after = self.subject.render(styles, indices)
                edits[:, k - 1] = to_uint8(after).cpu()
                afters.append(self.logits(after))
                seconds.append(None if self.second is None else self.second.logits(after).cpu())
                stage.update(k * len(plan))
        has_second = self.second is not None
        pictures = self.subject.pictures
        return Counterfactuals(
            image=rows,
            target=targets,
            before=self.logits(before),
            after=torch.stack(afters, dim=1),
            second_before=self.second.logits(before).cpu() if has_second else None,
            second_after=torch.stack(seconds, dim=1) if has_second else None,
            originals=unedited if pictures is None else pictures.images(indices).cpu(),
            unedited=unedited,
            edits=edits,
        )

    def _plan(self, method: str) -> tuple[Images, list[tuple[int, int, list[Attribute]]]]:
        """The images of a method, and (row, target, attributes) of every edit."""
        if method in SINGLE:
            plan = [(row, target, lists[method]) for (row, target), lists in self.single_lists.items()]
            return self.searched, plan
        lists = self.control_lists if method == CONTROL else {t: self.lists[t][method] for t in self.lists}
        return self.judged, [(row, target, lists[target]) for row, target in self._pairs(self.judged)]

    def _pairs(self, images: Images) -> list[tuple[int, int]]:
        """(row, target): every image towards at most TARGETS other classes, which take turns."""
        pairs = []
        for row, own in enumerate(images.predicted.tolist()):
            others = [k for k in self.subject.wanted if k != own]
            turn = TARGETS * row
            chosen = {others[(turn + i) % len(others)] for i in range(min(TARGETS, len(others)))}
            pairs += [(row, target) for target in sorted(chosen)]
        return pairs

    def _joint(self, row: int, target: int):
        """The target's logit of an image of the search with several attributes moved together."""
        images = self.searched
        moved = self.search.moved(images.styles[row : row + 1])[0]

        def logits(sets: list[list[Attribute]]) -> Tensor:
            own = images.styles[row]
            styles = torch.stack([edited(own, moved, self.search.coordinates, one) for one in sets])
            pictures = self.subject.render(styles, [images.indices[row]] * len(sets))
            return self.logits(pictures)[:, target]

        return logits

    def _effects(self, classifier: NamedClassifier, search: Search) -> Effects:
        return Effects(
            self.subject, classifier, search, batch=self.batch, root=self._root, progress=self.progress
        )

    def document(self, *, run_id: str) -> ExplanationShape:
        """Everything that was found, as it is written to disk."""
        snapshot, classifier = self.subject.generator.snapshot, self.subject.classifier
        found = []
        for target in self.subject.wanted:
            known = self.methods.of_class(target)
            mean = known.effects.mean(dim=0)
            for method in (name for name in GLOBAL if name in self._documented):
                attributes = [self._attribute(one, mean, known.rows) for one in self.lists[target][method]]
                found.append(FoundShape(method=method, class_index=target, attributes=attributes))
            singles = [name for name in SINGLE if name in self._documented]
            for (row, towards), lists in self.single_lists.items() if singles else ():
                if towards == target and row < SINGLE_IN_DOCUMENT:
                    rows = torch.tensor([row])
                    own = known.effects[(known.rows == row).nonzero().flatten()][0]
                    for method in singles:
                        found.append(
                            FoundShape(
                                method=method,
                                class_index=target,
                                attributes=[self._attribute(one, own, rows) for one in lists[method]],
                                image=self.searched.indices[row],
                            )
                        )
        return ExplanationShape(
            schema=SCHEMA,
            run_id=run_id,
            snapshot=snapshot.path.name,
            snapshot_sha256=snapshot.sha256,
            classifier=ClassifierShape(
                name=classifier.name, sha256=classifier.sha256, classes=list(classifier.classes)
            ),
            images=ImagesShape(
                kind=self.subject.kind,
                seed=self.seed,
                count=len(self.searched),
                indices=self.searched.indices,
                predicted=self.searched.predicted.tolist(),
                judged=self.judged.indices,
            ),
            shift=self.search.shift,
            found=found,
        )

    def _attribute(self, attribute: Attribute, mean: Tensor, rows: Tensor) -> AttributeShape:
        """An attribute with its mean effect [2, J] and its mean size over rows of the search."""
        direction, place = attribute
        coordinate = int(self.search.coordinates[place])
        layer = self.subject.space.layer_of(coordinate)
        own = self.searched.styles[rows, coordinate]
        target = self.search.targets[direction, place]
        return AttributeShape(
            layer=layer.name,
            index=coordinate - layer.start,
            direction=DIRECTIONS[direction],
            size=(self.search.shift * (target - own)).abs().mean().item(),
            effect=mean[direction, place].item(),
            by=self.subject.classifier.name,
            target=target.item(),
        )
