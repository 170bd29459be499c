"""What is particular to SDNet: one-hot maps, a style code of two numbers or of all, shapes told apart."""

import math

import pytest
import torch

from anastyle import ENCODERS, Batch, ConfigError
from anastyle_plugins.encoders._moments import moments
from anastyle_plugins.encoders.sdnet import AdaIN, Code, SDNet, dice

TINY = SDNet.tiny(None)  # type: ignore[arg-type]


def make(image_size=16, **options):
    return SDNet(SDNet.Config(**{**TINY, **options}), image_size=image_size)


@pytest.fixture
def image():
    return torch.rand(4, 3, 16, 16) * 2 - 1


def disc_like(radius, *, turn=0.0, at=(0.0, 0.0), size=64):
    """Draw the map of a shape from its radius at each angle, (H, W) of 0 and 1."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(axis - at[1], axis - at[0], indexing="ij")
    return (torch.hypot(x, y) < radius(torch.atan2(y, x) - turn)).float()


SHAPES = {
    "disc": lambda a: 0.45 + 0 * a,
    "oval": lambda a: 0.42 / torch.hypot(a.cos() / 1.45, a.sin() / 0.7),
    "three lobes": lambda a: 0.42 * (1 + 0.34 * (3 * a).cos()),
    "five points": lambda a: 0.42 * (0.55 + 0.9 * (2.5 * a).cos().abs() ** 3),
    "bulge": lambda a: 0.38 * (1 + 0.75 * torch.exp(-((torch.atan2(a.sin(), a.cos()) / 0.38) ** 2))),
    "jagged": lambda a: 0.43 * (1 + 0.14 * (14 * a).sin()),
}


def test_sdnet_is_the_plugin_of_its_file():
    assert ENCODERS.get("sdnet") is SDNet


@pytest.mark.parametrize("training", [True, False])
def test_maps_are_one_hot(image, training):
    encoder = make().train(training)

    maps = encoder.maps(image)

    assert maps.shape == (4, 8, 16, 16)
    torch.testing.assert_close(maps.sum(dim=1), torch.ones(4, 16, 16))
    torch.testing.assert_close(maps.amax(dim=1), torch.ones(4, 16, 16))


def test_gradients_pass_through_the_drawn_maps(image):
    encoder = make().train()

    encoder.maps(image)[:, 0].sum().backward()

    assert encoder.anatomy.head.weight.grad.abs().max() > 0


def test_only_the_faithful_encoder_draws_noise_in_eval(image):
    steady, faithful = make().eval(), make(faithful=True).eval()

    assert torch.equal(steady.maps(image), steady.maps(image))
    assert not torch.equal(faithful.maps(image), faithful.maps(image))


def test_the_shared_decoder_sees_only_mean_and_std_of_the_code(image):
    encoder = make().eval()
    maps, code = encoder.maps(image), torch.randn(4, 8)

    same = encoder.decoder(maps, code.flip(1))

    torch.testing.assert_close(same, encoder.decoder(maps, code))


def test_the_learned_decoder_sees_every_number_of_the_code(image):
    encoder = make(adain="learned").eval()
    maps, code = encoder.maps(image), torch.randn(4, 8, requires_grad=True)

    encoder.decoder(maps, code).sum().backward()

    assert code.grad.abs().amin() > 0
    assert not torch.allclose(encoder.decoder(maps, code), encoder.decoder(maps, code.flip(1)))


def test_adain_gives_each_channel_the_mean_and_std_of_the_code():
    code = torch.tensor([[1.0, 2.0, 6.0]])

    styled = AdaIN(5, 3, learned=False)(torch.randn(1, 5, 32, 32) * 7 + 4, code)

    torch.testing.assert_close(styled.mean(dim=(2, 3)), torch.full((1, 5), 3.0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(styled.std(dim=(2, 3)), torch.full((1, 5), 7**0.5), rtol=1e-3, atol=1e-3)


def test_dice_is_summed_over_the_batch():
    probability = torch.zeros(2, 1, 2, 2)
    probability[0] = 0.5
    mask = torch.zeros(2, 1, 2, 2)
    mask[:, :, 0] = 1

    assert dice(probability, mask).item() == pytest.approx(1 - (2 * 1.0 + 0.1) / (2.0 + 4.0 + 0.1))
    assert dice(mask, mask).item() == pytest.approx(0, abs=1e-6)


def test_without_masks_dice_is_zero_and_still_reaches_the_segmentation_head(image):
    encoder = make().train()
    batch = Batch(keys=[""] * 4, index=torch.arange(4), image=image)

    losses = encoder.losses(batch)
    losses["dice"].backward()

    assert losses["dice"].item() == 0
    assert all(p.grad is not None for p in encoder.segmentor.parameters())


def test_the_divergence_of_a_code_is_that_of_a_normal():
    code = Code(torch.tensor([[0.0, 0.0], [1.0, 2.0]]), torch.tensor([[0.0, 0.0], [0.0, math.log(4)]]))

    expected = [0.0, 0.5 * (1 + (4 + 4 - 1 - math.log(4)))]

    torch.testing.assert_close(code.divergence(), torch.tensor(expected))


def test_a_style_factor_is_the_mean_of_the_code(image):
    encoder = make().eval()

    factors = encoder(image)

    torch.testing.assert_close(factors.style[:, 0], encoder.style(encoder.maps(image), image).mean)


def test_occupancy_is_the_area_of_each_map(image):
    encoder = make().eval()

    anatomy = encoder(image).anatomy

    torch.testing.assert_close(anatomy[:, 0], encoder.maps(image).mean(dim=(2, 3)))
    torch.testing.assert_close(anatomy.sum(dim=(1, 2)), torch.ones(4))


def test_a_grid_says_where_a_map_is():
    encoder = make(pool="grid", grid=2, anatomy_maps=3)
    maps = torch.zeros(1, 3, 16, 16)
    maps[:, 1, :8, 8:] = 1

    grid = encoder.factors(torch.zeros(1, 3, 16, 16), maps, torch.zeros(1, 8)).anatomy

    assert grid.shape == (1, *encoder.dims.anatomy) == (1, 1, 12)
    assert grid.view(3, 2, 2)[1].tolist() == [[0, 1], [0, 0]]
    assert grid.sum() == 1


def test_outline_and_surface_are_of_the_lesion_that_the_head_sees(image):
    encoder = make(pool="outline", surface=True).eval()

    factors = encoder(image)

    assert factors.anatomy.shape[1:] == encoder.dims.anatomy == (1, 19)
    assert factors.style.shape[1:] == encoder.dims.style == (1, 8 + 36)
    lesion = encoder.lesion(encoder.maps(image), image.shape[-2:])
    torch.testing.assert_close(factors.anatomy[:, 0, 0], lesion.mean(dim=(1, 2, 3)))
    torch.testing.assert_close(factors.style[:, 0, :8], encoder.style(encoder.maps(image), image).mean)


def test_words_aim_at_the_true_lesion_where_a_mask_shows_it(image):
    encoder = make(pool="outline", surface=True).eval()
    mask = torch.zeros(4, 1, 16, 16)
    mask[:, :, 4:10, 5:12] = 1
    batch = Batch(keys=list("abcd"), index=torch.arange(4), image=image, mask=mask)

    aimed = encoder.targets(batch)
    batch.mask = None
    seen = encoder.targets(batch)

    torch.testing.assert_close(aimed.anatomy[:, 0, 0], mask.mean(dim=(1, 2, 3)))
    inside = image[:, :, 5:9, 6:11].mean(dim=(2, 3))  # a pixel from the outline
    torch.testing.assert_close(aimed.style[:, 0, -6:-3], inside)
    torch.testing.assert_close(seen.anatomy, encoder(image).anatomy)
    assert not torch.allclose(aimed.anatomy, seen.anatomy)


def test_groups_are_the_same_numbers_as_tokens(image):
    one = make(pool="outline", surface=True).eval()
    parted = make(pool="outline", surface=True, groups=True).eval()
    parted.load_state_dict(one.state_dict())

    whole, tokens = one(image), parted(image)

    assert tokens.anatomy.shape[1:] == parted.dims.anatomy == (4, 9)
    assert tokens.style.shape[1:] == parted.dims.style == (4, 15)
    for factor, name, sizes in zip(whole, ("anatomy", "style"), ((6, 9, 1, 3), (8, 15, 15, 6)), strict=True):
        parts = getattr(tokens, name)
        shown = torch.cat([parts[:, place, :size] for place, size in enumerate(sizes)], dim=1)
        torch.testing.assert_close(shown, factor[:, 0])
        assert all(parts[:, place, size:].eq(0).all() for place, size in enumerate(sizes))


@pytest.mark.parametrize("options", [{"pool": "outline"}, {"surface": True}])
def test_groups_need_what_they_part(options):
    with pytest.raises(ConfigError, match=r"encoder\.groups"):
        make(groups=True, **options)


@pytest.mark.parametrize("options", [{"pool": "outline"}, {"surface": True}])
def test_what_measures_a_lesion_needs_masks(image, options):
    with pytest.raises(ConfigError, match="no masks to find it by"):
        make(**options).losses(Batch(keys=list("abcd"), index=torch.arange(4), image=image))


def test_moments_give_place_and_size():
    shape = disc_like(lambda a: 0.3 + 0 * a, at=(0.4, -0.2))[None, None]

    found = moments(shape)[0, 0]

    assert found[0].item() == pytest.approx(math.pi * 0.3**2 / 4, rel=0.02)
    assert found[1:3].tolist() == pytest.approx([0.4, -0.2], abs=0.01)
    assert found[3:6].tolist() == pytest.approx([0.3**2 / 4, 0.3**2 / 4, 0], abs=0.002)
    assert found[12].item() == pytest.approx(1, abs=0.08)


def test_moments_do_not_change_when_a_shape_turns_but_tell_shapes_apart():
    turns = [0.0, 0.5, 1.1, 1.9, 2.6]
    drawn = torch.stack([torch.stack([disc_like(radius, turn=t) for t in turns]) for radius in SHAPES.values()])

    shape = moments(drawn)[..., 6:]  # (shapes, turns, harmonics and compactness)

    within = torch.stack([torch.cdist(one, one).max() for one in shape]).max()
    between = torch.pdist(shape.mean(dim=1)).min()
    assert between > 2 * within, f"{within=} {between=}"


def test_moments_of_an_empty_map_are_zero_and_have_gradients():
    maps = torch.zeros(1, 2, 8, 8, requires_grad=True)

    found = moments(maps)
    found.sum().backward()

    assert found.abs().max() < 1e-5
    assert maps.grad.isfinite().all()


def test_at_half_scale_maps_are_coarser_and_a_description_still_fits(image):
    encoder = make(scale=2, depth=2).eval()

    encoding = encoder.describe(image)

    assert encoder.maps(image[..., ::2, ::2]).shape == (4, 8, 8, 8)
    assert encoding.maps.shape == (4, 8, 16, 16)
    assert encoding.reconstruction.shape == image.shape
    torch.testing.assert_close(encoding.factors.anatomy, encoder(image).anatomy)


@pytest.mark.parametrize(("size", "options"), [(24, {"depth": 3}), (40, {"depth": 1}), (28, {})])
def test_any_size_that_halves_often_enough_is_built(size, options):
    encoder = make(size, **options).eval()

    encoding = encoder.describe(torch.randn(1, 3, size, size))

    assert encoding.reconstruction.shape == (1, 3, size, size)


def test_sizes_that_cannot_be_built_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        make(50, style_dim=1)

    assert "encoder.depth: 50 pixels" in str(caught.value)
    assert "Set data.image_size to 48" in str(caught.value)
    assert "encoder.style_dim" in str(caught.value)


def test_one_image_is_too_few_to_normalise_over():
    batch = Batch(keys=[""], index=torch.arange(1), image=torch.randn(1, 3, 16, 16))

    with pytest.raises(ConfigError, match="batch_size"):
        make().train().losses(batch)


def test_training_finds_the_lesion():
    encoder = make(adain="learned").train()
    mask = torch.zeros(8, 1, 16, 16)
    for i in range(8):
        mask[i, :, i : i + 6, 2 + i : 8 + i] = 1
    image = mask * 1.2 - 0.6 + 0.1 * torch.randn(8, 3, 16, 16)
    batch = Batch(keys=[""] * 8, index=torch.arange(8), image=image, mask=mask)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-2)

    before = encoder.losses(batch)["dice"].item()
    for _ in range(40):
        losses = encoder.losses(batch)
        optimizer.zero_grad()
        (losses["reconstruction"] + losses["dice"]).backward()
        optimizer.step()

    assert losses["dice"].item() < 0.25 < before


def test_it_works_at_its_own_size_whatever_the_images_are():
    encoder, large = make(image_size=64, size=16).eval(), torch.rand(2, 3, 64, 64)

    small = torch.nn.functional.interpolate(large, (16, 16), mode="area")
    shown = encoder.describe(large)

    assert shown.maps is not None
    assert shown.maps.shape == (2, 8, 64, 64)
    torch.testing.assert_close(encoder(large).style, encoder(small).style)
    terms = encoder.losses(Batch(["a", "b"], torch.arange(2), image=large, mask=(large[:, :1] > 0.5).float()))
    assert all(term.isfinite() for term in terms.values())


def test_a_size_of_its_own_that_cannot_be_built_is_named():
    with pytest.raises(ConfigError, match=r"Set encoder\.size to 16"):
        make(image_size=64, size=18)
