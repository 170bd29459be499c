"""What is chosen on validation captions, and whether a row is better than its own start: on hits made by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anastyle.errors import ConfigError
from anastyle.evaluation.reference import Settings
from anastyle.evaluation.validation import Criterion, Measured, Share, chosen, compared, validate
from anastyle.settings import GenerateSettings, ValidateSettings
from anastyle.stages.choice import Candidate, Choice, logged, painted_with

N = 128
RNG = np.random.default_rng(0)


def hits(share: float, seed: int, parts: int = 9) -> np.ndarray:
    """Return hits of which this share is right."""
    return (np.random.default_rng(seed).random((parts, N)) < share).astype(float)


class Worth(Share):
    """A criterion whose images say themselves what share of them is right."""

    def __init__(self, draws: int = 200) -> None:
        super().__init__("factor_mean", lambda images: hits(float(images[0]), int(images[1])), Settings(draws=draws))


class Painter:
    """Paints images that are as good as a table says, and remembers what it was asked for."""

    def __init__(self, worth: dict[float, float], seed: int = 1) -> None:
        self.worth, self.seed, self.asked = worth, seed, list[tuple[float, int]]()

    def __call__(self, how: GenerateSettings) -> Tensor:
        self.asked.append((how.guidance, how.steps))
        return torch.tensor([self.worth[how.guidance] - 0.3 * (how.steps < 4), self.seed])


OWN = GenerateSettings(guidance=3, steps=12)


def test_each_candidate_is_painted_once_and_the_best_is_chosen() -> None:
    paint = Painter({1.5: 0.5, 3.0: 0.8, 5.0: 0.6})

    choice = validate(paint, Worth(), N, OWN, ValidateSettings(guidance=[3.0, 1.5, 5.0, 3.0]))

    assert paint.asked == [(1.5, 12), (3.0, 12), (5.0, 12)]
    assert (choice.guidance, choice.steps, choice.n) == (3.0, 12, N)
    assert all(one.low < one.value < one.high for one in choice.candidates if one.low and one.high)
    assert choice.learned is None


def test_the_fewest_steps_that_are_as_good_are_chosen() -> None:
    paint = Painter({1.5: 0.5, 3.0: 0.8, 5.0: 0.79})

    choice = validate(paint, Worth(), N, OWN, ValidateSettings(steps=[12, 2, 8, 4]))

    assert (choice.guidance, choice.steps) == (3.0, 4), "at two steps it is worse beyond the interval"


def test_the_lower_distance_is_the_better() -> None:
    candidates = [Candidate(g, s, v, v - 1, v + 1) for g, s, v in [(1, 4, 9.0), (3, 4, 5.5), (1, 8, 9.0), (3, 8, 5.0)]]

    assert chosen(candidates, lower_is_better=True) == 1
    assert chosen(candidates, lower_is_better=False) == 0, "of equals, the first"
    assert chosen([one._replace(low=None, high=None) for one in candidates], lower_is_better=True) == 3


def test_a_row_that_trained_nothing_that_matters_is_warned_about() -> None:
    base = Painter({3.0: 0.9}, seed=2)  # what the base could do by its own words

    choice = validate(Painter({1.5: 0.88, 3.0: 0.905, 5.0: 0.9}), Worth(), N, OWN, ValidateSettings(), base)

    assert base.asked == [(3.0, 12)], "at the file's guidance"
    assert choice.learned is False
    assert "no better than its own untuned start" in choice.warning
    assert "the row measures its base" in choice.warning


def test_a_row_that_learns_is_not_warned_about() -> None:
    start = Painter({1.5: 0.3, 3.0: 0.3, 5.0: 0.3})

    choice = validate(Painter({1.5: 0.7, 3.0: 0.8, 5.0: 0.75}), Worth(), N, OWN, ValidateSettings(), start)

    assert choice.learned is True
    assert choice.warning == ""
    assert choice.start is not None
    assert choice.start.difference == pytest.approx(0.5, abs=0.05)


def test_a_row_that_training_made_worse_is_warned_about_too() -> None:
    start = Painter({3.0: 0.9})

    choice = validate(Painter({3.0: 0.5}), Worth(), N, OWN, ValidateSettings(guidance=[3.0]), start)

    assert choice.learned is False


def test_the_difference_from_the_start_is_paired() -> None:
    noisy = RNG.random(N) < 0.5  # half of the captions are hard for everybody
    one, other = (np.where(noisy, 0.0, share)[None] for share in (1.0, 0.9))
    settings = Settings(draws=400)
    images = torch.zeros(1)

    trained, start = (Share("factor_mean", lambda _, own=own: own, settings).measured(images) for own in (one, other))

    apart = compared(trained, start, 3.0)
    alone = trained.interval()
    assert apart.low is not None
    assert apart.high is not None
    assert alone[0] is not None
    assert alone[1] is not None
    assert apart.high - apart.low < 0.2 * (alone[1] - alone[0])
    assert apart.low > 0


def test_a_distance_is_learned_when_it_falls() -> None:
    class Far(Criterion):
        key, lower_is_better = "kid", True

        def measured(self, images: Tensor) -> Measured:
            value = float(images.flatten()[0])
            return Measured(value, value + np.linspace(-0.01, 0.01, 50))

    better = validate(
        Painter({3.0: 0.2}), Far(Settings()), N, OWN, ValidateSettings(guidance=[3.0]), Painter({3.0: 0.5})
    )
    same = validate(Painter({3.0: 0.5}), Far(Settings()), N, OWN, ValidateSettings(guidance=[3.0]), Painter({3.0: 0.5}))

    assert (better.learned, same.learned) == (True, False)


def test_without_draws_nothing_is_claimed() -> None:
    choice = validate(Painter({3.0: 0.5}), Worth(0), N, OWN, ValidateSettings(guidance=[3.0]), Painter({3.0: 0.5}))

    assert (choice.candidates[0].low, choice.learned, choice.warning) == (None, None, "")


def test_a_choice_is_written_read_and_painted_with(tmp_path: Path) -> None:
    paint = Painter({1.5: 0.9, 3.0: 0.8, 5.0: 0.6})
    choice = validate(paint, Worth(), N, OWN, ValidateSettings(), Painter({3.0: 0.2}))

    choice.write(tmp_path)

    assert Choice.read(tmp_path) == choice
    assert painted_with(OWN, tmp_path) == GenerateSettings(guidance=1.5, steps=12)
    assert logged(choice)["validate/guidance"] == 1.5
    assert "guidance 1.5, 12 steps, by factor_mean of 128 validation captions: 1.5 gives 89.1" in choice.words


@pytest.mark.parametrize(
    "options", [{"guidance": []}, {"guidance": [-1.0]}, {"steps": []}, {"steps": [0]}, {"images": 0}]
)
def test_settings_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ValidateSettings(**options)
