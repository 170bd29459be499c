"""What is particular to readers and fusers that keep the tokens of a factor apart."""

import torch

from anastyle import Embedded, FactorDims, Factors, Reading, TextDims
from anastyle_plugins.aligners.query_reader import QueryReader, contrast, distance
from anastyle_plugins.fusers.factor_tokens import FactorTokens

DIMS = FactorDims((3, 5), (2, 4))


def test_a_token_changes_its_own_condition_tokens_alone(factors):
    fuser = FactorTokens(FactorTokens.Config(hidden_dim=8, tokens=2), dims=DIMS, width=16)
    read = factors(DIMS)
    other = Factors(read.anatomy.clone(), read.style)
    other.anatomy[:, 1] += 1

    one, two = fuser(Reading(read)).tokens, fuser(Reading(other)).tokens

    assert one.shape == (4, 10, 16)
    changed = (one != two).any(dim=2).any(dim=0)
    assert changed.tolist() == [False, False, True, True, *[False] * 6]


def test_a_reader_attends_to_words_and_not_to_padding():
    reader = QueryReader(QueryReader.Config(width=8, heads=2), text=TextDims(12, 20), dims=DIMS).eval()
    tokens, mask = torch.randn(2, 6, 12), torch.arange(6) < torch.tensor([[4], [4]])
    padded = tokens.clone()
    padded[:, 4:] += 5
    worded = tokens.clone()
    worded[:, 3] = torch.randn(2, 12)
    pooled = torch.zeros(2, 20)

    one, same, other = (reader(Embedded(words, mask, pooled)).factors for words in (tokens, padded, worded))

    torch.testing.assert_close(one.anatomy, same.anatomy)
    assert (one.anatomy - other.anatomy).abs().amax(dim=(0, 2)).min() > 1e-4
    assert one.anatomy.shape == (2, 3, 8)
    assert one.style.shape == (2, 2, 8)


def test_numbers_that_never_vary_weigh_nothing():
    goal = torch.randn(8, 2, 4)
    goal[:, 0, 2:] = 0
    read = goal.clone()
    read[:, 0, 2:] += 100  # padding
    assert distance(read, goal) == 0

    read[:, 1] += 1
    torch.testing.assert_close(distance(read, goal), torch.tensor(0.5))  # one token of two is wrong by one


def test_contrast_is_least_where_each_caption_finds_its_own():
    goal = torch.eye(4).expand(2, 4, 4).transpose(0, 1)  # (B, N, D)

    assert contrast(goal, goal, 0.1) < 0.01
    assert contrast(goal.roll(1, 0), goal, 0.1) > 5
