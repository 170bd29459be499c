"""Streams of chance: stable, apart from each other, and blind to a sample's neighbours."""

import itertools

import torch

from anastyle.streams import noise, seed_for


def test_a_seed_is_the_same_in_every_process_and_version():
    assert seed_for(42, "noise", "sample-1", 7) == 6773481773640383910


def test_seeds_fit_sixty_three_bits_and_differ():
    seeds = {seed_for(root, name, step) for root in range(5) for name in ("order", "noise") for step in range(100)}

    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_borders_and_the_order_of_names_count():
    names = [("ab", "c"), ("a", "bc"), ("abc",), ("c", "ab"), ("ab", "c", "")]

    assert len({seed_for(1, *name) for name in names}) == len(names)


def test_noise_depends_on_the_key_alone_not_on_the_neighbours():
    together = noise((2, 3), 1, "noise", ["a", "b", "c"], 5)
    alone = noise((2, 3), 1, "noise", ["c"], 5)

    assert together.shape == (3, 2, 3)
    assert torch.equal(together[2], alone[0])


def test_noise_differs_by_root_name_key_and_step():
    draws = [noise((4,), *arguments) for arguments in [
        (1, "noise", ["a"], 0), (2, "noise", ["a"], 0), (1, "other", ["a"], 0), (1, "noise", ["b"], 0),
        (1, "noise", ["a"], 1),
    ]]  # fmt: skip

    assert not any(torch.equal(one, other) for one, other in itertools.combinations(draws, 2))


def test_noise_is_standard_normal_and_leaves_the_global_stream_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)

    draw = noise((1000,), 3, "noise", [f"key-{index}" for index in range(20)], 0)

    assert torch.equal(torch.rand(3), expected)
    assert abs(draw.mean()) < 0.03
    assert abs(draw.std() - 1) < 0.03


def test_no_keys_give_no_noise():
    assert noise((2, 3), 1, "noise", [], 0).shape == (0, 2, 3)
