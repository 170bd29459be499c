"""What is particular to the paper's aligner: its two distances, and what standardising the targets mends."""

import pytest
import torch
import torch.nn.functional as F

from anastyle import ConfigError, Embedded, FactorDims, Factors, TextDims
from anastyle_plugins.aligners.clinicalbert_mlp import ClinicalBertMLP, RunningScale
from anastyle_plugins.aligners.token_reader import TokenReader

TEXT = TextDims(12, 20)
DIMS = FactorDims((1, 8), (1, 6))


def make(dims=DIMS, **options):
    return ClinicalBertMLP(ClinicalBertMLP.Config(hidden_dim=16, **options), text=TEXT, dims=dims)


def words(n=5):
    return Embedded(torch.zeros(n, 1, TEXT.token), torch.ones(n, 1, dtype=torch.bool), torch.randn(n, TEXT.pooled))


def test_losses_are_those_of_equation_two(factors):
    aligner, embedded, target = make().eval(), words(), factors(DIMS, 5)

    losses = aligner.losses(embedded, target)

    read = aligner(embedded).factors
    for name in ("anatomy", "style"):
        cosine = F.cosine_similarity(getattr(read, name)[:, 0], getattr(target, name)[:, 0])
        torch.testing.assert_close(losses[name], (1 - cosine).mean())
    rebuilt = aligner.decoder(torch.cat([read.anatomy, read.style], dim=2)[:, 0])
    torch.testing.assert_close(losses["reconstruction"], (rebuilt - embedded.pooled).square().mean())
    assert set(losses) == {"anatomy", "style", "reconstruction"}


def test_each_token_of_a_factor_has_its_own_cosine(factors):
    dims = FactorDims((2, 3), (1, 4))
    aligner, embedded, target = make(dims).eval(), words(), factors(dims, 5)

    loss = aligner.losses(embedded, target)["anatomy"]

    read = aligner(embedded).factors.anatomy
    torch.testing.assert_close(loss, (1 - F.cosine_similarity(read, target.anatomy, dim=2)).mean())


def test_dropout_acts_in_training_only():
    aligner, embedded = make(dropout=0.5), words()

    aligner.train()
    assert not torch.equal(aligner(embedded).factors.style, aligner(embedded).factors.style)
    aligner.eval()
    assert torch.equal(aligner(embedded).factors.style, aligner(embedded).factors.style)


def test_a_running_scale_is_that_of_all_rows_it_saw():
    scale, rows = RunningScale(3), torch.randn(50, 3) * torch.tensor([1.0, 10.0, 0.1]) + torch.tensor([0.0, 5.0, -2.0])

    for part in rows.split([20, 1, 29]):
        scale.update(part)

    torch.testing.assert_close(scale.mean, rows.mean(dim=0))
    torch.testing.assert_close((scale.square / scale.count).sqrt(), rows.std(dim=0, correction=0))
    torch.testing.assert_close(scale(rows[:, None]).mean(dim=0), torch.zeros(1, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(scale(rows[:, None]).std(dim=0, correction=0), torch.ones(1, 3))


def test_a_number_that_never_varies_is_not_blown_up():
    scale = RunningScale(1)

    scale.update(torch.full((10, 1), 0.3) + 1e-7 * torch.randn(10, 1))

    assert scale(torch.full((1, 1, 1), 0.3)).abs().item() < 0.01


def test_scales_are_gathered_in_training_only_and_are_saved(factors):
    aligner, target = make(standardise=True), factors(DIMS, 5)

    aligner.eval().losses(words(), target)
    assert aligner.target_anatomy.count == 0
    aligner.train().losses(words(), target)

    assert aligner.target_anatomy.count == 5
    assert "target_style.mean" in aligner.state_dict()


def test_magnitude_is_a_term_only_with_standardised_targets(factors):
    target = factors(DIMS, 5)

    assert "magnitude" not in make().losses(words(), target)
    assert "magnitude" in make(standardise=True).losses(words(), target)


def test_magnitude_is_the_distance_to_the_standardised_targets(factors):
    aligner, embedded, target = make(standardise=True, dropout=0.0).train(), words(), factors(DIMS, 5)

    losses = aligner.losses(embedded, target)

    read, goal = aligner(embedded).factors, aligner.standardised(target)
    expected = (read.anatomy - goal.anatomy).square().mean() + (read.style - goal.style).square().mean()
    torch.testing.assert_close(losses["magnitude"], expected)
    torch.testing.assert_close(goal.anatomy.mean(dim=0), torch.zeros(1, 8), rtol=0, atol=1e-5)


def test_without_standardising_factors_stay_as_they_are(factors):
    target = factors(DIMS, 5)

    assert make().standardised(target) is target


def test_a_constant_answer_fools_the_raw_cosine_but_not_the_standardised_one():
    areas = torch.softmax(torch.tensor([3.0, 2, 1, 0, 0, 0, 0, 0]) + 0.3 * torch.randn(200, 1, 8), dim=2)
    target = Factors(areas, torch.randn(200, 1, 6))

    def constant(aligner):
        with torch.no_grad():
            aligner.anatomy[-1].weight.zero_()
            aligner.anatomy[-1].bias.copy_(areas.mean(dim=(0, 1)))
        return aligner.train().losses(words(200), target)["anatomy"].item()

    assert constant(make()) < 0.05
    assert constant(make(standardise=True)) > 0.5


def test_alignment_learns_what_the_words_say():
    aligner = make(standardise=True, dropout=0.0).train()
    embedded = words(64)
    target = Factors(0.1 + 0.01 * embedded.pooled[:, None, :8], 5 * embedded.pooled[:, None, 8:14])
    optimizer = torch.optim.Adam(aligner.parameters(), lr=1e-2)

    for _ in range(150):
        losses = aligner.losses(embedded, target)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()

    assert losses["anatomy"].item() < 0.05
    assert losses["magnitude"].item() < 0.2


def test_an_aligner_without_an_encoder_says_what_to_do():
    with pytest.raises(ConfigError, match="encoder is null"):
        make(dims=None)


def test_the_token_reader_hands_words_on_and_has_no_parameters():
    embedded = words()
    reader = TokenReader(TokenReader.Config(), text=TEXT, dims=None)

    reading = reader(embedded)

    assert reading.tokens is embedded.tokens
    assert reading.mask is embedded.mask
    assert reading.pooled is embedded.pooled
    assert reading.factors is None
    assert not list(reader.parameters())
    assert not reader.trained
