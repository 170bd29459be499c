"""The judge: what it learns, what it says, and that it comes back from disk the same."""

import pytest
import torch
from fake_split import FakeSplit

from anastyle import DataError, MissingError
from anastyle.evaluation.classifier import Classifier
from anastyle.evaluation.judge import Judge, answers_of, pixels, questions
from anastyle.evaluation.resizing import resized


def test_the_judge_tells_every_factor_of_images_it_has_not_seen(judge, test):
    scores = judge.accuracy(test.bytes(), answers_of(test))

    assert set(scores) == {"label", "place", "noise"}
    assert min(scores.values()) > 0.9


def test_accuracy_follows_what_was_asked_not_what_is_shown(judge, test):
    asked = {"place": 1 - test.factors["place"]}

    assert judge.accuracy(test.bytes(), asked)["place"] < 0.1


def test_unknown_answers_do_not_count(judge, test):
    truth = test.factors["place"].clone()
    half_known = torch.where(torch.arange(len(test)) < 40, truth, -1)

    score = judge.accuracy(test.bytes(), {"place": half_known})["place"]

    assert score == judge.accuracy(test.bytes()[:40], {"place": truth[:40]})["place"]
    assert judge.accuracy(test.bytes(), {"place": torch.full_like(truth, -1), "shape": truth}) == {}


def test_images_of_another_size_are_brought_to_the_judges(judge, test):
    larger = resized(test.bytes().float() / 127.5 - 1, 48)

    score = judge.accuracy(((larger + 1) * 127.5).to(torch.uint8), {"place": test.factors["place"]})["place"]

    assert score > 0.9


def test_the_same_seed_gives_the_same_judge_and_leaves_the_callers_randomness_alone(train):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)

    first, again, other = (Judge.train(train, seed=seed, steps=3, batch_size=16) for seed in (0, 0, 1))

    assert torch.equal(torch.rand(3), expected)
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_a_judge_comes_back_from_disk(judge, test, tmp_path):
    judge.save(tmp_path / "judge.safetensors")

    back = Judge.load(tmp_path / "judge.safetensors")

    assert back.fingerprint() == judge.fingerprint()
    assert all(
        torch.equal(back.answers(test.bytes())[name], found) for name, found in judge.answers(test.bytes()).items()
    )


def test_a_missing_or_foreign_file_is_said_to_be_so(tmp_path):
    (tmp_path / "other.safetensors").write_bytes(b"nothing")

    with pytest.raises(MissingError, match="no trained classifier"):
        Judge.load(tmp_path / "none.safetensors")
    with pytest.raises(DataError, match="will be trained again"):
        Judge.load(tmp_path / "other.safetensors")


def test_a_set_of_one_class_without_factors_has_nothing_to_judge():
    with pytest.raises(DataError, match="nothing a judge could tell apart"):
        Judge.train(FakeSplit(12, seed=0, factors=False, classes=1), seed=0, steps=1)


def test_questions_leave_out_what_has_one_answer(train):
    assert questions(train) == {"label": 2, "place": 2, "noise": 2}
    assert questions(FakeSplit(12, seed=0, factors=False, classes=1)) == {}


def test_pixels_come_back_as_stored_and_masks_only_when_every_record_has_one(train):
    images, masks = pixels(train, 16, [3, 5])

    assert torch.equal(images, train.bytes([3, 5]))
    assert masks is not None
    assert torch.equal(masks.float(), train.masks[[3, 5]])

    class Some(FakeSplit):
        def mask(self, index, /):
            return None if index == 1 else super().mask(index)

    assert pixels(Some(4, seed=0), 8)[1] is None


@pytest.mark.parametrize("side", [16, 64, 128])
def test_every_parameter_of_a_classifier_gets_a_gradient(side):
    model = Classifier({"type": 3, "a.b": 2}, width=8, side=side)

    sum(answer.sum() for answer in model(torch.randn(2, 3, side, side)).values()).backward()

    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
