"""User studies: the form hides what the key says, scores follow closed forms, and bad files are named."""

import base64
import csv
import dataclasses
import io
import json
import math
import re
from itertools import combinations

import numpy as np
import pytest
import torch
from explain_toys import toy_frames
from PIL import Image
from sklearn.metrics import cohen_kappa_score

from fact_eval.explain.agreement import (
    chance_probability,
    cohen_kappa,
    fleiss_kappa,
    mean_cohen_kappa,
    wilson_interval,
)
from fact_eval.explain.raters import FILMS, FORM, KEY, read_key, strongest, write_pack
from fact_eval.explain.ratings import (
    COLUMNS,
    find_answers,
    read_answers,
    score_descriptions,
    score_identification,
    words_of,
)
from fact_metrics.base.errors import UsageError, UserError

# Agreement

# Answers of 14 raters to 10 questions in 5 categories, and their kappa: the worked example of Fleiss' kappa
# in Wikipedia, 0.210.
WORKED = [
    *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
    *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
]


def test_fleiss_kappa_of_the_worked_example() -> None:
    questions = [[c for c, k in enumerate(counts) for _ in range(k)] for counts in WORKED]
    assert fleiss_kappa(list(zip(*questions, strict=True))) == pytest.approx(
        0.210, abs=5e-4
    )  # 3 digits given


def test_fleiss_kappa_of_two_raters_is_scotts_pi() -> None:
    gen = np.random.default_rng(0)
    a, b = gen.integers(0, 3, (2, 50)).tolist()
    share = [(a.count(c) + b.count(c)) / 100 for c in range(3)]
    chance, observed = sum(p * p for p in share), np.mean(np.equal(a, b))
    assert fleiss_kappa([a, b]) == pytest.approx((observed - chance) / (1 - chance), rel=1e-12)


def test_cohen_kappa_is_that_of_scikit_learn() -> None:
    gen = np.random.default_rng(1)
    raters = gen.integers(0, 2, (4, 30)).tolist()
    for a, b in combinations(raters, 2):
        assert cohen_kappa(a, b) == pytest.approx(cohen_kappa_score(a, b), rel=1e-12)
    pairs = [cohen_kappa_score(a, b) for a, b in combinations(raters, 2)]
    assert mean_cohen_kappa(raters) == pytest.approx(np.mean(pairs), rel=1e-12)


def test_agreement_is_one_if_all_agree_and_undefined_if_nothing_varies() -> None:
    assert fleiss_kappa(["ABAB"] * 3) == cohen_kappa("ABAB", "ABAB") == 1
    assert fleiss_kappa(["AAAA"] * 3) is cohen_kappa("AAAA", "AAAA") is None
    assert mean_cohen_kappa(["AAAA", "AAAA", "AABB"]) == 0  # the pair without a value does not count
    with pytest.raises(ValueError, match="two raters"):
        fleiss_kappa(["AB"])


@pytest.mark.parametrize(("k", "n"), [(0, 7), (3, 7), (7, 7), (190, 300)])
def test_the_interval_solves_wilsons_equation(k: int, n: int) -> None:
    z = 1.959963984540054  # of the normal distribution at 97.5 %
    for bound in wilson_interval(k, n):  # where the share is z standard errors of the bound away
        assert (k / n - bound) ** 2 == pytest.approx(z**2 * bound * (1 - bound) / n, abs=1e-12)
    low, high = wilson_interval(k, n)
    assert 0 <= low <= k / n <= high <= 1 and low < high


def test_the_probability_of_guessing_is_the_binomial_tail() -> None:
    tail = sum(math.comb(12, k) for k in range(9, 13)) / 2**12
    assert chance_probability(9, 12, 0.5) == pytest.approx(tail, rel=1e-12)
    assert chance_probability(0, 12, 0.5) == 1


# The form and its key


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    write_pack(folder, toy_frames(), attributes=4, seed=0)
    return folder


def form_data(folder) -> dict:
    return json.loads((folder / FORM).read_text().split('id="data">')[1].split("</script>")[0])


def shown_frames(address: str) -> torch.Tensor:
    """Frames [T, 32, 32] of a film."""
    content = base64.b64decode(address.removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(content)) as opened:
        array = np.array(opened.convert("L"))
    return torch.from_numpy(array).unflatten(1, (-1, 32)).permute(1, 0, 2)


def test_films_show_the_attribute_of_the_key_on_different_images(pack) -> None:
    frames, key = toy_frames(), read_key(pack / KEY)
    films = {question["id"]: question["films"] for question in form_data(pack)["questions"]}
    of = {}
    for part in frames.parts:
        for sweep in part.sweeps:
            name = f"{sweep.attribute.layer}.{sweep.attribute.index}"
            of[part.method, part.target, name] = sweep.frames.images[:, :, 0]

    def image_of(film: str, question, name: str) -> int:
        """The image of a film: of the class of the question, whichever attribute it shows."""
        wanted = shown_frames(film)
        rows = of[question.method, question.class_index, name]
        (image,) = [i for i, row in enumerate(rows) if torch.equal(row, wanted)]
        return image

    for question in key.questions:
        shown = films[question.id]
        right = "AB".index(question.answer) if question.answer else None
        names = [question.attribute] * len(shown)
        if right is not None:
            assert question.distractor != question.attribute
            names[3 - right] = question.distractor
        assert len(shown) == FILMS
        images = [image_of(film, question, name) for film, name in zip(shown, names, strict=True)]
        assert len(set(images)) == FILMS


def test_the_form_does_not_say_what_the_key_says(pack) -> None:
    text, key = (pack / FORM).read_text(), read_key(pack / KEY)
    data = form_data(pack)
    assert {name for question in data["questions"] for name in question} == {"id", "kind", "films"}
    rest = re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", text)
    for question in key.questions:
        for secret in (question.attribute, key.run_id, "attfind"):
            assert secret not in rest
    # the numbers of the questions follow neither method nor kind
    order = [(question.method, question.kind) for question in key.questions]
    assert order != sorted(order)


def test_a_is_right_as_often_as_b(pack) -> None:
    for method in ("attfind-greedy", "random"):
        rights = [q.answer for q in read_key(pack / KEY).questions if q.answer and q.method == method]
        assert abs(rights.count("A") - rights.count("B")) <= 1 and len(rights) > 2


def test_the_strongest_attributes_are_shown_each_once() -> None:
    shown = strongest(toy_frames(), "attfind-greedy", 3)
    assert [(one.name, one.sweep.attribute.effect) for one in shown] == [
        *(("b8.conv1.0", 3.0), ("b4.conv1.1", 2.5), ("b4.conv1.0", 1.1))
    ]


def test_a_seed_gives_the_same_form_and_another_seed_another_one(pack, tmp_path) -> None:
    for name, seed in (("same", 0), ("other", 1)):
        write_pack(tmp_path / name, toy_frames(), attributes=4, seed=seed)
    for file in (FORM, KEY):
        assert (tmp_path / "same" / file).read_bytes() == (pack / file).read_bytes()
    assert read_key(tmp_path / "other" / KEY).pack != read_key(pack / KEY).pack


def test_a_study_without_a_second_attribute_or_enough_images_is_refused(tmp_path) -> None:
    frames = toy_frames()
    part = frames.parts[0]
    single = dataclasses.replace(part, sweeps=part.sweeps[:1])
    with pytest.raises(
        UserError, match="attfind-greedy found one attribute for class disc, a study compares"
    ):
        write_pack(tmp_path, dataclasses.replace(frames, parts=(single,)))
    few = dataclasses.replace(part.sweeps[0], own=part.sweeps[0].own[:3])
    with pytest.raises(UserError, match="class disc is shown on 3 images, a study needs 4"):
        write_pack(tmp_path, dataclasses.replace(frames, parts=(dataclasses.replace(part, sweeps=(few,)),)))
    assert not list(tmp_path.iterdir())


# Scores


def write_answers(path, key, rater: str, answers: dict[str, str], **changed: str):
    """A CSV file as the form saves it."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for i, question in enumerate(q for q in key.questions if q.id in answers):
            row = dict(pack=key.pack, rater=rater, question=question.id, kind=question.kind, position=i + 1)
            row |= dict(answer=answers[question.id], seconds="1.0")
            writer.writerow((row | changed).values())
    return path


def given(key, right: float, words: str) -> dict[str, str]:
    """Answers of which the first share of each method is right."""
    answers = {}
    for method in {question.method for question in key.questions}:
        asked = [q for q in key.questions if q.kind == "identification" and q.method == method]
        for i, question in enumerate(asked):
            wrong = "B" if question.answer == "A" else "A"
            answers[question.id] = question.answer if i < right * len(asked) else wrong
    return answers | {q.id: words for q in key.questions if q.kind == "description"}


def test_scores_of_three_raters(pack, tmp_path) -> None:
    key = read_key(pack / KEY)
    for name, right, words in (("a", 1, "The hole grows"), ("b", 1, "bigger HOLE"), ("c", 0, "brighter")):
        write_answers(tmp_path / f"{name}.csv", key, name, given(key, right, words))
    answers = read_answers(find_answers([tmp_path]), key)
    score = {one.method: one for one in score_identification(key, answers)}["attfind-greedy"]
    n = score.questions
    assert (score.raters, score.answers, score.right, score.rate) == (3, 3 * n, 2 * n, 2 / 3)
    assert (score.low, score.high) == wilson_interval(2 * n, 3 * n)
    assert score.chance_p == chance_probability(2 * n, 3 * n, 0.5)
    assert score.rater_mean == pytest.approx(2 / 3) and score.rater_std == pytest.approx(
        np.std([1, 1, 0], ddof=1)
    )
    rights = [q.answer for q in key.questions if q.answer and q.method == "attfind-greedy"]
    wrongs = ["B" if a == "A" else "A" for a in rights]
    assert score.common == n and score.fleiss_kappa == fleiss_kappa([rights, rights, wrongs])
    assert score.cohen_kappa == pytest.approx((1 + 2 * cohen_kappa_score(rights, wrongs)) / 3)
    for one in score_descriptions(key, answers):
        assert (one.word, one.count, one.share, one.raters) == ("hole", 2, 2 / 3, 3)
        assert one.agreeing_pairs == pytest.approx(1 / 3)


def test_a_rater_who_stopped_early_counts_with_what_is_there(pack, tmp_path) -> None:
    key = read_key(pack / KEY)
    answers = given(key, 1, "hole")
    asked = [q.id for q in key.questions if q.kind == "identification" and q.method == "random"]
    write_answers(tmp_path / "a.csv", key, "a", answers)
    write_answers(tmp_path / "b.csv", key, "b", {q: answers[q] for q in asked[:2]})
    read = read_answers([tmp_path / "a.csv", tmp_path / "b.csv"], key)
    scores = {one.method: one for one in score_identification(key, read)}
    assert (scores["random"].answers, scores["random"].common) == (len(asked) + 2, 2)
    assert scores["attfind-greedy"].raters == 1
    assert scores["attfind-greedy"].fleiss_kappa is scores["attfind-greedy"].rater_std is None


def test_words_of_a_description() -> None:
    assert words_of("The HOLE gets bigger, and darker!") == {"hole", "bigger", "darker"}
    assert words_of("größer; 目") == {"grösser", "目"} or words_of("größer; 目") == {
        "grösser".casefold(),
        "目",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pack": "x\x1b"}, r"a.csv, line 2: form 'x\\x1b', the key is of form"),
        ({"question": "q99"}, r"a.csv, line 2: the key has no question 'q99'"),
        ({"answer": "C"}, r"a.csv, line \d+: answer 'C', it must be A or B"),
    ],
)
def test_answers_that_do_not_fit_the_key_are_named(pack, tmp_path, change, message) -> None:
    key = read_key(pack / KEY)
    path = write_answers(tmp_path / "a.csv", key, "a", given(key, 1, "hole"), **change)
    with pytest.raises(UserError, match=message):
        read_answers([path], key)


def test_answers_of_one_rater_in_two_files_or_twice_are_refused(pack, tmp_path) -> None:
    key = read_key(pack / KEY)
    paths = [write_answers(tmp_path / f, key, "Ann", given(key, 1, "hole")) for f in ("a.csv", "b.csv")]
    with pytest.raises(UserError, match=r"b.csv and .*a.csv both have answers of 'Ann'; remove one"):
        read_answers(paths, key)
    paths[0].write_text(paths[0].read_text() + paths[0].read_text().splitlines()[1] + "\n")
    with pytest.raises(UserError, match="'Ann' answers q01 twice; remove one line"):
        read_answers(paths[:1], key)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "cannot be read"),
        (b"a,b\n1,2\n", "does not have the columns pack, rater"),
        (b"", "does not have the columns"),
        (",".join(COLUMNS).encode() + b'\nx,"y\n', "cannot be read"),
        (",".join(COLUMNS).encode() + b"\nx,y\n", "line 2 does not have 7 columns"),
        (",".join(COLUMNS).encode() + b"\n" + b"1," * 9 + b"\n", "line 2 does not have 7 columns"),
        (",".join(COLUMNS).encode() + b"\n", "no answer in"),
        (b"x" * (5 << 20), "answers of raters of 4.0 MiB"),
    ],
)
def test_files_that_are_no_answers_are_one_line(pack, tmp_path, content, message) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_answers([path], read_key(pack / KEY))


def test_missing_answers_and_keys_are_named(tmp_path) -> None:
    with pytest.raises(UsageError, match="no CSV file in"):
        find_answers([tmp_path])
    with pytest.raises(UsageError, match="nowhere does not exist"):
        find_answers([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"cannot be read .*give the answer-key.json"):
        read_key(tmp_path / KEY)
    (tmp_path / KEY).write_text('{"schema": 1}')
    with pytest.raises(UserError, match=r"give the answer-key.json"):
        read_key(tmp_path / KEY)
