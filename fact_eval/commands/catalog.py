"""Commands about metrics and detectors: `fact-eval list`, `train-digits`."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from fact_eval.commands.options import AsJson, say


def list_(as_json: AsJson = False) -> None:
    """List metrics and detectors with their sources."""
    from fact_eval.jobs.catalog import load_cards, load_detector_cards
    from fact_metrics.recommended import ELSEWHERE, RECOMMENDED

    cards, detectors = load_cards(), load_detector_cards()
    if as_json:
        listed = {"metrics": cards, "detectors": detectors}
        listed = {name: [dataclasses.asdict(card) for card in each] for name, each in listed.items()}
        recommended = {name: dataclasses.asdict(each) for name, each in RECOMMENDED.items()}
        print(json.dumps({**listed, "recommended": recommended, "elsewhere": ELSEWHERE}, indent=1))
        return
    from fact_eval.reports.tables import cards_list, detectors_list

    print(f"Metrics\n\n{cards_list(cards)}\n\nDetectors\n\n{detectors_list(detectors)}\n\nRecommended\n")
    for dataset, each in RECOMMENDED.items():
        print(f"{dataset}: {each.detector} ({each.why})")
    print(f"other data: {ELSEWHERE} (embedded; not compared on such data), or the standard protocol")


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
