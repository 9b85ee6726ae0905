"""Frames from a run folder, as its document says; --page and study-pack; foreign documents are refused."""

import csv
import json
import shutil
from pathlib import Path

import msgspec
import pytest
import torch
from eval_toys import make_data, make_run, make_stylex_run

from fact_eval.explain.document import (
    AttributeShape,
    ClassifierShape,
    ExplanationShape,
    FoundShape,
    ImagesShape,
    document_path,
    find_document,
    question_name,
    write_explanation,
)
from fact_eval.explain.filming import film_explanation
from fact_eval.explain.raters import FORM, KEY, read_key
from fact_eval.explain.ratings import COLUMNS
from fact_eval.explain.session import ExplainOptions, open_subject
from fact_eval.jobs.plan import Job, Request, plan_run
from fact_eval.jobs.runs import read_run
from fact_metrics.base.errors import UserError
from fact_metrics.base.pixels import to_uint8
from fact_metrics.base.progress import Progress
from fact_train.classifiers.training import train_classifier

SEARCHED, JUDGED = range(6), range(6, 12)

SNAPSHOT, QUESTION = "network-snapshot-000004", "toy"


def job_of(run: Path) -> Job:
    (job,) = plan_run(read_run(run), Request(()))
    return job


def subject_of(run: Path, classifier: str | None):
    options = ExplainOptions(classifier=classifier)
    return open_subject(job_of(run), options, seed=3, device="cpu", batch=4, progress=Progress(quiet=True))


def explain(run: Path, classifier: str | None) -> ExplanationShape:
    """A document of two methods for a class that the classifier gives none of the images."""
    subject = subject_of(run, classifier)
    styles = subject.styles(list(SEARCHED))
    predicted = subject.classifier.logits(subject.render(styles, list(SEARCHED))).argmax(dim=1).tolist()
    judged = subject.render(subject.styles(list(JUDGED)), list(JUDGED))
    used = {*predicted, *subject.classifier.logits(judged).argmax(dim=1).tolist()}
    target = min(range(3), key=lambda k: (k in used, k))

    def attribute(j: int) -> AttributeShape:
        layer = subject.space.layer_of(j)
        return AttributeShape(
            layer=layer.name,
            index=j - layer.start,
            direction=1,
            size=0.5,
            effect=0.1 * j,
            by="toy",
            target=styles[:, j].max().item(),
        )

    explanation = ExplanationShape(
        schema=1,
        run_id=run.name,
        snapshot=job_of(run).snapshot.name,
        snapshot_sha256=job_of(run).content_sha256,
        classifier=ClassifierShape(name="toy", sha256=subject.classifier.sha256, classes=["a", "b", "<i>c"]),
        images=ImagesShape(
            kind=subject.kind,
            count=6,
            seed=3,
            indices=list(SEARCHED),
            predicted=predicted,
            judged=list(JUDGED),
        ),
        shift=0.5,
        found=[
            FoundShape(
                method="attfind-greedy", class_index=target, attributes=[attribute(j) for j in (3, 9, 12)]
            ),
            FoundShape(method="random", class_index=target, attributes=[attribute(j) for j in (1, 2, 5)]),
            FoundShape(method="attfind-subset", class_index=target, attributes=[attribute(0)], image=0),
            FoundShape(method="gradient", class_index=target, attributes=[]),
        ],
    )
    write_explanation(run, explanation, QUESTION)
    return explanation


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp("filming")
    data = make_data(root / "data", labelled=True)
    classifier = str(root / "toy.safetensors")
    train_classifier(classifier, data=str(data), epochs=3, batch=8, report=lambda line: None)
    stylex = make_stylex_run(root / "runs", data, classifier)
    plain = make_run(root / "runs", data, name="plain")
    documents = {stylex: explain(stylex, None), plain: explain(plain, classifier)}
    return {"stylex": stylex, "plain": plain, "classifier": classifier, "documents": documents}


@pytest.mark.parametrize("name", ["stylex", "plain"])
def test_frames_are_the_judged_images_and_their_edits(place, name: str) -> None:
    run, classifier = place[name], place["classifier"] if name == "plain" else None
    frames = film_explanation(job_of(run), find_document(run, SNAPSHOT), classifier=classifier)
    assert frames.methods == ("attfind-greedy", "random")  # lists of one image and empty lists are not shown
    part, subject = frames.parts[0], subject_of(run, classifier)
    styles = subject.styles(list(JUDGED))
    logits = subject.classifier.logits(subject.render(styles, list(JUDGED)))
    shown = part.together.images[:, 0]
    before = to_uint8(subject.render(styles, list(JUDGED)))
    places = [next(i for i, b in enumerate(before) if torch.equal(a, b)) for a in shown]
    assert len(set(places)) == len(places) > 0
    assert part.target not in logits[places].argmax(dim=1)
    edited = styles[places]
    for attribute in place["documents"][run].found[0].attributes:
        j = subject.space.coordinate(attribute.layer, attribute.index)
        edited[:, j] += 0.5 * (attribute.target - edited[:, j])
    indices = [JUDGED[i] for i in places]
    assert torch.equal(part.together.images[:, -1], to_uint8(subject.render(edited, indices)))
    low = subject.styles(list(SEARCHED)).min(dim=0).values
    first = subject.space.coordinate(part.sweeps[0].attribute.layer, part.sweeps[0].attribute.index)
    assert low[first] in part.sweeps[0].values[0]


def test_a_page_is_written_without_a_new_search(place, call) -> None:
    code, _, err = call(
        *("explain", place["plain"], "--classifier", place["classifier"], "--images", 0, "--page")
    )
    folder = document_path(place["plain"], SNAPSHOT, QUESTION).parent
    assert code == 0 and f"wrote {folder / 'explanation.html'} and 6 pictures" in err
    assert "&lt;i&gt;" not in (folder / "explanation.html").read_text()  # classes are data, not markup
    assert r"\u003ci\u003ec" in (folder / "explanation.html").read_text()


def test_a_study_is_packed_and_scored(place, call, tmp_path) -> None:
    code, out, err = call("study-pack", place["stylex"], "--attributes", 3, "--out", tmp_path / "pack")
    assert code == 0 and out == "" and f"wrote {tmp_path / 'pack' / FORM}: send it to the raters" in err
    key = read_key(tmp_path / "pack" / KEY)
    assert len(key.questions) == 2 * 2 * 3 and key.run_id == job_of(place["stylex"]).run_id
    for name, wrong in (("Ann", 0), ("Bob", 1)):
        with open(tmp_path / f"{name}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for i, q in enumerate(key.questions):
                answer = "<b>" if q.answer is None else "AB"[("AB".index(q.answer) + wrong) % 2]
                writer.writerow([key.pack, name, q.id, q.kind, i, answer, 1])
    code, out, _ = call("study-score", tmp_path / "pack" / KEY, tmp_path, "--json")
    scores = json.loads(out)
    assert code == 0 and scores["raters"] == 2
    assert [(s["method"], s["right"], s["answers"]) for s in scores["identification"]] == [
        *(("attfind-greedy", 3, 6), ("random", 3, 6))
    ]
    code, table, _ = call("study-score", tmp_path / "pack" / KEY, tmp_path / "Ann.csv")
    low = 3 / (3 + 1.959964**2)  # Wilson's interval of 3 of 3
    assert code == 0 and "3 of 3" in table and f"[{low:.3f}, 1.000]" in table


def test_the_folder_of_a_study_is_beside_the_explanation(place, call) -> None:
    code, *_ = call(
        *("study-pack", place["plain"], "--classifier", place["classifier"], "--methods", "random")
    )
    folder = document_path(place["plain"], SNAPSHOT, QUESTION).parent / "study"
    assert code == 0 and {question.method for question in read_key(folder / KEY).questions} == {"random"}


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["study-pack", "nowhere"], 2, "nowhere is not a folder; give the folder of one run"),
        (["study-pack", "{stylex}", "--methods", "attfin"], 2, "unknown method 'attfin'; did you mean"),
        (["study-pack", "{stylex}", "--attributes", "1"], 2, "--attributes"),
        (["study-pack", "{plain}"], 2, "without a classifier; choose one with --classifier"),
        (["study-pack", "{plain}", "--classifier", "mnist"], 1, "explains the classifier toy with weights"),
        (["study-score", "nowhere", "nowhere"], 1, "nowhere cannot be read"),
    ],
)
def test_mistakes_are_one_line(place, call, argv, code, message) -> None:
    argv = [arg.format(stylex=place["stylex"], plain=place["plain"]) for arg in argv]
    result = call(*argv)
    lines = [line for line in result[2].splitlines() if line.startswith("fact-eval: ")]
    assert result[:2] == (code, "") and len(lines) == 1 and message in lines[0]
    assert "Traceback" not in result[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"snapshot_sha256": "0" * 64}, "explains another version of"),
        ({"images": {"judged": [10**6]}}, "names no images that can be shown"),
        ({"images": {"judged": [-1]}}, "image index is -1"),
        ({"classifier": ["a"] * 7}, "names 7 classes, and the classifier has 3"),
        ({"images": {"judged": []}}, "names no images that can be shown"),
        ({"layer": "b4.conv9"}, "the generator has no style b4.conv9.3"),
        ({"index": 10**6}, "the generator has no style"),
        ({"found": []}, "has no attribute to show"),
    ],
)
def test_documents_that_do_not_fit_the_run_are_refused(place, tmp_path, change, message) -> None:
    document = msgspec.to_builtins(place["documents"][place["stylex"]])
    path = document_path(place["stylex"], document["snapshot"], QUESTION)
    kept = path.read_bytes()
    first = document["found"][0]["attributes"][0]
    document["images"] |= change.pop("images", {})
    document["classifier"]["classes"] = change.pop("classifier", document["classifier"]["classes"])
    first |= {name: change.pop(name) for name in ("layer", "index") if name in change}
    try:
        path.write_text(json.dumps(document | change))
        with pytest.raises(
            UserError, match=message.replace("\\", "\\\\") if "x1b" not in message else "no style"
        ):
            film_explanation(job_of(place["stylex"]), path)
    finally:
        path.write_bytes(kept)


def test_a_run_without_an_explanation_is_one_line(place, tmp_path) -> None:
    path = document_path(place["stylex"], SNAPSHOT, QUESTION)
    kept = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(UserError, match=r"000004 has no explanation; run `fact-eval explain` again"):
            find_document(place["stylex"], SNAPSHOT)
        with pytest.raises(UserError, match=r"attributes.json cannot be read .*run `fact-eval explain`"):
            film_explanation(job_of(place["stylex"]), path)
    finally:
        path.write_bytes(kept)


def test_of_several_explanations_one_is_chosen_by_name(place, call, tmp_path) -> None:
    run = shutil.copytree(place["stylex"], tmp_path / "run")
    other = document_path(run, SNAPSHOT, question_name("toy", ["a", "b", "<i>c"], [2, 0]))
    shutil.copytree(document_path(run, SNAPSHOT, QUESTION).parent, other.parent)
    assert other.parent.name == "toy-a-_i_c"
    code, _, err = call("study-pack", run, "--attributes", 3)
    assert code == 1 and "has 2 explanations; choose one with --question: toy, toy-a-_i_c" in err
    code, _, err = call("study-pack", run, "--attributes", 3, "--question", "toy-a-_i_c")
    assert code == 0 and f"wrote {other.parent / 'study' / FORM}" in err
    code, _, err = call("study-pack", run, "--attributes", 3, "--question", "toyy")
    assert code == 2 and "unknown question 'toyy'; did you mean" in err


def test_the_name_of_a_question_is_a_short_and_plain_one() -> None:
    digits = [str(i) for i in range(10)]
    assert question_name("mnist", digits, range(10)) == "mnist"
    assert question_name("mnist", digits, [9, 8], seed=1) == "mnist-8-9-seed1"
    assert question_name("../x", ["a/b", "c"], [0]) == ".._x-a_b"
    many = [f"class {i}" for i in range(60)]
    long = [question_name("c", many, range(n)) for n in (50, 51)]
    assert len(set(long)) == 2 and max(map(len, long)) <= 110


def test_the_commands_of_records_and_of_people_name_each_other(call) -> None:
    texts = {name: " ".join(call(name, "--help")[1].split()) for name in ("study", "study-pack")}
    assert "Studies with people are something else: fact-eval study-pack and study-score" in texts["study"]
    assert "`fact-eval study` is something else" in texts["study-pack"]
