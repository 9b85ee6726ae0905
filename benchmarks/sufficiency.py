"""Why ten attributes flip fewer images than published: what an edit adds, and what the class part of w holds.

`python -m benchmarks sufficiency`. The published StylEx snapshot of MNIST, 8 against 9: one search over all
coordinates, then the same judged images with other numbers of attributes, longer edits, other selections,
ToRGB layers, and with the class part of w exchanged. Nothing here is a time, so any machine will do.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fact_eval.explain.effects import Effects, Search
from fact_eval.explain.methods import Methods, edited
from fact_eval.explain.selection import Attribute, select_greedy, select_largest
from fact_eval.explain.subject import Images, NamedClassifier, Subject
from fact_eval.images.sources import GeneratorSource
from fact_metrics.base.devices import resolve_device, set_threads
from fact_metrics.base.progress import Progress
from fact_metrics.engines.attributes import wilson_interval
from fact_train.data import open_dataset
from fact_train.snapshot import load_snapshot

SNAPSHOT = Path(__file__).parents[1] / "leaderboard" / "snapshots" / "mnist-seed0-77b89667-000096.safetensors"
CLASSES = (8, 9)
IMAGES = 60
COUNTS = (10, 20, 40, 80)
SHIFTS = (1.5, 2.0, 3.0)


def run(
    *, seconds: float = 0.0, device: str = "auto", threads: int | None = None, images: int = IMAGES
) -> dict[str, Any]:
    """Flips of every setting, and what explains them; `images` are searched, as many more judged."""
    set_threads(threads)
    subject = open_subject(str(resolve_device(device)))
    with torch.inference_mode():
        return _Experiment(subject, images).results()


def open_subject(device: str) -> Subject:
    """Reconstructions of the published StylEx snapshot, with its own classifier."""
    snapshot = load_snapshot(SNAPSHOT, device=device)
    source = GeneratorSource(snapshot, seed=0, labels_of=open_dataset("mnist", resolution=32))
    classifier = NamedClassifier("mnist", snapshot.C, snapshot.classifier)
    pictures = open_dataset("mnist", split="test", resolution=32)
    return Subject(source, classifier, held_out=pictures, wanted=CLASSES)


class _Experiment:
    def __init__(self, subject: Subject, count: int) -> None:
        self.subject = subject
        self.searched, self.judged = subject.choose(count)
        self.search = Search.over(self.searched, subject.space.coordinates(torgb=True))
        self.effects = Effects(subject, subject.classifier, self.search, progress=Progress())
        self.effects.compute()
        self.methods = Methods(subject, self.effects, seed=0)
        self.known = {target: self.methods.of_class(target) for target in CLASSES}
        own = torch.zeros(len(self.search.coordinates), dtype=torch.bool)
        own[torch.isin(self.search.coordinates, subject.space.coordinates())] = True
        self.without_torgb = own

    def results(self) -> dict[str, Any]:
        usual = {target: self._greedy(target) for target in CLASSES}
        rows = [self._row("10 attributes, shift 1", usual)]
        for k in COUNTS[1:]:
            rows.append(self._row(f"{k} attributes", {t: self._greedy(t, count=k) for t in CLASSES}))
        rows.append(self._row("all coordinates, each its better way", {t: self._all(t) for t in CLASSES}))
        rows += [self._row(f"shift {shift:g}", usual, shift=shift) for shift in SHIFTS]
        rows += [
            self._row("40 attributes, shift 2", {t: self._greedy(t, count=40) for t in CLASSES}, shift=2.0),
            self._row(
                "explained at 1 logit, as published", {t: self._greedy(t, enough=1.0) for t in CLASSES}
            ),
            self._row("no image counts as explained", {t: self._greedy(t, enough=1e9) for t in CLASSES}),
            self._row("unstable images too", {t: self._greedy(t, stable=False) for t in CLASSES}),
            self._row("ToRGB layers too", {t: self._greedy(t, torgb=True) for t in CLASSES}),
            self._class_logits("the two logits in the class part of w as coordinates"),
            self._class_part("class part of w exchanged, no attribute", {}),
            self._class_part("class part exchanged and 10 attributes", usual),
            self._class_part("encoder part exchanged, no attribute", {}, swap_class=False),
        ]
        return {
            "snapshot": SNAPSHOT.name,
            "images": len(self.judged),
            "coordinates": int(self.without_torgb.sum()),
            "rows": rows,
            "singles": self._singles(usual),
            "parts": self._parts(usual),
            "share_of_class_part": self._share_of_class_part(),
        }

    def _greedy(
        self,
        target: int,
        *,
        count: int = 10,
        enough: float | None = None,
        stable: bool = True,
        torgb: bool = False,
    ) -> list[Attribute]:
        known = self.known[target]
        effects, margins = known.effects, known.enough
        if not stable:
            rows = (self.searched.predicted != target).nonzero().flatten()
            effects = self.effects.on_class(target)[rows]
            logits = self.searched.logits[rows]
            margins = (
                logits.gather(1, self.searched.predicted[rows, None])[:, 0] - logits[:, target]
            ).double()
        if not torgb:
            effects = effects.where(self.without_torgb, 0)
        margins = margins if enough is None else torch.full_like(margins, enough)
        return select_greedy(effects, enough=margins, count=count)

    def _all(self, target: int) -> list[Attribute]:
        effects = self.known[target].effects.mean(dim=0).where(self.without_torgb, float("-inf"))
        return select_largest(effects, count=int(self.without_torgb.sum()))

    def _pairs(self) -> list[tuple[int, int]]:
        """(row of the judged images, target): the other class of the two."""
        return [(row, sum(CLASSES) - own) for row, own in enumerate(self.judged.predicted.tolist())]

    def _row(self, name: str, lists: dict[int, list[Attribute]], *, shift: float = 1.0) -> dict[str, Any]:
        search = Search(self.searched, self.search.coordinates, self.search.targets, shift)
        return self._flips(name, self._edit(search, self.judged.styles, lists))

    def _edit(self, search: Search, styles: Tensor, lists: dict[int, list[Attribute]]) -> Tensor:
        moved = search.moved(styles)
        return torch.stack(
            [
                edited(styles[row], moved[row], search.coordinates, lists.get(target, []))
                for row, target in self._pairs()
            ]
        )

    def _class_part(
        self, name: str, lists: dict[int, list[Attribute]], *, swap_class: bool = True
    ) -> dict[str, Any]:
        """Each image with the class part of w of an image of the other class, or with its encoder part."""
        ws, width = self._ws(self.judged), self.subject.generator.G.w_dim
        of_class = {k: (self.judged.predicted == k).nonzero().flatten() for k in CLASSES}
        turn = dict.fromkeys(CLASSES, 0)
        mixed = ws.clone()
        for row, target in self._pairs():
            other = of_class[target][turn[target] % len(of_class[target])]
            turn[target] += 1
            part = slice(width, None) if swap_class else slice(0, width)
            mixed[row, ..., part] = ws[other, ..., part]
        return self._flips(name, self._edit(self.search, self.subject.space.read(mixed), lists))

    def _class_logits(self, name: str) -> dict[str, Any]:
        """The class logits in w at the extremes of the searched images, as an edit moves a style."""
        width = self.subject.generator.G.w_dim
        ranges, ws = self._ws(self.searched)[:, 0, width:], self._ws(self.judged).clone()
        for row, target in self._pairs():
            ws[row, :, width + target] = ranges[:, target].max()
            ws[row, :, width + sum(CLASSES) - target] = ranges[:, sum(CLASSES) - target].min()
        return self._flips(name, self.subject.space.read(ws))

    def _ws(self, images: Images) -> Tensor:
        pictures = self.subject.pictures.images(images.indices)
        return self.subject.generator.snapshot.reconstruction_ws(pictures)

    def _logits(self, styles: Tensor, images: Images) -> Tensor:
        return self.subject.classifier.logits(self.subject.render(styles, images.indices))

    def _flips(self, name: str, styles: Tensor) -> dict[str, Any]:
        """Share of images with the target's class, its interval, and the mean change of the margin."""
        rows, target = torch.tensor(self._pairs()).T
        own = self.judged.predicted
        before, after = self.judged.logits, self._logits(styles, self.judged)
        share = (after.argmax(dim=1) == target).double().mean().item()
        left = (after.argmax(dim=1) != own).double().mean().item()
        low, high = wilson_interval(share, len(rows))
        margins = [(x[rows, target] - x[rows, own]).mean().item() for x in (before, after)]
        return {
            **{"setting": name, "flips": share, "low": low, "high": high},
            **{"leaves": left, "margin": margins[1]},
        }

    def _parts(self, lists: dict[int, list[Attribute]]) -> dict[str, float]:
        """Flips by the class that an edit is to reach, and of the halves with smaller and larger margins."""
        rows, target = torch.tensor(self._pairs()).T
        before = self.judged.logits
        needed = before.amax(dim=1) - before[rows, target]
        after = self._logits(self._edit(self.search, self.judged.styles, lists), self.judged)
        flipped = (after.argmax(dim=1) == target).double()
        groups = {f"towards {k}": target == k for k in CLASSES}
        groups |= {"smaller margins": needed <= needed.median(), "larger margins": needed > needed.median()}
        return {name: flipped[group].mean().item() for name, group in groups.items()}

    def _singles(self, lists: dict[int, list[Attribute]]) -> dict[str, float]:
        """Mean margin to make up for, the effects of ten attributes one by one, and their joint effect."""
        rows, target = torch.tensor(self._pairs()).T
        own = self.judged.predicted

        def margin(logits: Tensor) -> Tensor:
            return logits[rows, target] - logits[rows, own]

        before = margin(self.judged.logits)
        single = sum(
            margin(
                self._logits(
                    self._edit(self.search, self.judged.styles, {t: [lists[t][k]] for t in CLASSES}),
                    self.judged,
                )
            )
            - before
            for k in range(10)
        )
        joint = margin(self._logits(self._edit(self.search, self.judged.styles, lists), self.judged)) - before
        return {
            "needed": -before.mean().item(),
            "needed_deviation": before.std().item(),
            "sum_of_singles": single.mean().item(),
            "joint": joint.mean().item(),
        }

    def _share_of_class_part(self) -> float:
        """Share of the variance of styles over images that comes from the class part of w."""
        ws, width = self._ws(self.searched), self.subject.generator.G.w_dim
        fixed = ws.clone()
        fixed[..., :width] = ws[..., :width].mean(dim=0, keepdim=True)
        coordinates = self.subject.space.coordinates()
        all_styles, of_class = (self.subject.space.read(one)[:, coordinates] for one in (ws, fixed))
        return (of_class.var(dim=0).sum() / all_styles.var(dim=0).sum()).item()


def table(result: dict[str, Any]) -> str:
    """Flips of every setting, and what one edit adds, as Markdown."""
    lines = [
        "| setting | flips | 95 % | leaves its class | margin of the target |",
        "|---|---:|---|---:|---:|",
    ]
    for row in result["rows"]:
        interval = f"{row['low']:.2f} to {row['high']:.2f}"
        flips, left = (f"{row[name]:.2f}" for name in ("flips", "leaves"))
        lines.append(f"| {row['setting']} | {flips} | {interval} | {left} | {row['margin']:+.1f} |")
    found, share = result["singles"], 100 * result["share_of_class_part"]
    return "\n".join(lines) + (
        f"\n\n{result['images']} images, {result['coordinates']} coordinates. To flip, the margin has to "
        f"rise by {found['needed']:.1f} logits (deviation {found['needed_deviation']:.1f}). Ten attributes "
        f"raise it by {found['sum_of_singles']:.1f} one by one, {found['joint']:.1f} together. The class "
        f"part of w accounts for {share:.0f} % of the variance of styles. Flips with 10 attributes: "
        + ", ".join(f"{name} {value:.2f}" for name, value in result["parts"].items())
        + "."
    )
