"""Commands about metrics and detectors: `fact-eval list`, `train-digits`."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from fact_eval.commands.options import AsJson, say


def list_(
    family: Annotated[
        str | None, typer.Option(metavar="NAME", help="only this family: its grammar, detectors and metrics")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List metrics, the grammar of their names, detectors and recommended detectors."""
    from fact_eval.reports.tables import detectors_list, family_list, specs_list
    from fact_metrics.base.errors import unknown_name
    from fact_metrics.features import detector_spec, list_detectors
    from fact_metrics.registry import FAMILIES, list_specs
    from fact_train.datasets import DATASETS, GENERAL_DETECTOR

    families = [one for one in FAMILIES.values() if family in (None, one.name)]
    if not families:
        raise unknown_name("family", family, {one.name for one in FAMILIES.values()})
    specs = [spec for spec in list_specs() if family in (None, spec.family)]
    detectors = [detector_spec(name) for name in list_detectors()]
    if as_json:
        recommended = {
            entry.name: {"detector": entry.detector, "why": entry.evidence}
            for entry in DATASETS.values()
            if entry.evidence is not None
        }
        listed = {
            "grammar": {one.key: one.pattern for one in families},
            "metrics": [
                {**dataclasses.asdict(spec), "weights": spec.weights, "protocol": spec.protocol}
                for spec in specs
            ],
            "detectors": [
                {**dataclasses.asdict(detector), "fingerprint": detector.fingerprint}
                for detector in detectors
            ],
            "recommended": recommended,
            "elsewhere": GENERAL_DETECTOR,
        }
        print(json.dumps(listed, indent=1))
        return
    if family is not None:
        print(f"{family_list(families)}\n\n{specs_list(specs)}")
        return
    print("Metrics\n")
    print("Names follow a grammar: `<family><N>[<k>]_<full|train|test>_<detector>`.")
    print("So kid5k_test_pixels works too. `fact-eval list --family kid` shows what fits.\n")
    print(f"{specs_list(specs)}\n\nDetectors\n\n{detectors_list(detectors)}\n\nRecommended detectors\n")
    for entry in DATASETS.values():
        if entry.evidence is not None:
            print(f"{entry.name}: {entry.detector} ({entry.evidence})")
    print(f"other data: {GENERAL_DETECTOR} (no download; not measured there), or the standard protocol")


def train_digits_(
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Folder for the weights and their description.")
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="INT", help="Random seed of weights, data order and augmentation.")
    ] = 0,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="INT",
            help="Passes over the training digits. [default: as for the bundled weights]",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train the digit detectors again."""
    from fact_eval.weights.train_digits import EPOCHS, train_digits
    from fact_metrics import features

    folder = out or Path(features.__file__).parent / "weights"
    card = train_digits(folder, seed=seed, epochs=epochs or EPOCHS, report=say)
    if as_json:
        print(json.dumps(card, indent=1))
