"""Pretrained feature networks: their published layouts are read, their preprocessing is theirs, others are refused."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from anastyle import FEATURES, ConfigError, DataError, Feature, MissingError
from anastyle.config import section
from anastyle.fetch import of_plugin
from anastyle_plugins.features._inception import Inception as Network
from anastyle_plugins.features.inception import Inception

WEIGHTS = Path(os.environ.get("ANASTYLE_MOBILENET_V2", Path(__file__).parents[3] / "shared/weights/mobilenet_v2"))
NAMES = ["clip", "dinov2", "inception", "mobilenet_v2"]


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> dict[str, dict]:
    """Return, by network, the options that load its small checkpoint."""
    folder = tmp_path_factory.mktemp("weights")
    return {name: FEATURES.get(name).tiny(folder) for name in NAMES}


@pytest.fixture
def make(options):
    def build(name: str, **more) -> Feature:
        cls, config = section(FEATURES, {"name": name, **options[name], **more}, "feature")
        return cls(config)

    return build


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, 24, 24) * 2 - 1


@pytest.mark.parametrize(("name", "width"), [("clip", 12), ("dinov2", 16), ("inception", 2048), ("mobilenet_v2", 1280)])
def test_features_have_the_width_of_what_is_named(make, image, name, width):
    assert make(name)(image).shape == (2, width)


@pytest.mark.parametrize("name", NAMES)
def test_resize_changes_features_and_name_and_the_batch_neither(make, image, name):
    first, legacy, whole = make(name), make(name, resize="legacy_tf"), make(name, batch_size=9)

    assert (first(image) - legacy(image)).abs().mean() > 0.01 * first(image).std()
    assert first.fingerprint() != legacy.fingerprint()
    torch.testing.assert_close(first(image), whole(image), rtol=1e-3, atol=1e-4)
    assert first.fingerprint() == whole.fingerprint()
    assert f"{first.side}px-antialiased" in first.fingerprint()


def test_other_weights_and_another_size_have_another_name(make, options, tmp_path):
    source = Path(options["dinov2"]["path"])
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({name: value + 0.01 for name, value in tensors.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    names = {make("dinov2", **more).fingerprint() for more in ({}, {"path": str(tmp_path)}, {"side": 42})}

    assert len(names) == 3


@pytest.mark.parametrize("name", NAMES)
def test_images_arrive_at_the_networks_side_with_its_mean_and_deviation(make, name):
    network = make(name)
    mean, std = (torch.tensor(colour) for colour in network.colours)

    white, black = network.prepared(torch.stack([torch.ones(3, 9, 9), -torch.ones(3, 9, 9)]))

    assert white.shape == (3, network.side, network.side)
    torch.testing.assert_close(white.mean(dim=(1, 2)), (1 - mean) / std)
    torch.testing.assert_close(black.mean(dim=(1, 2)), -mean / std)


def test_the_classifier_and_the_text_part_of_a_whole_model_are_passed_over(options):
    clip = load_file(Path(options["clip"]["path"]) / "model.safetensors")
    mobilenet = load_file(Path(options["mobilenet_v2"]["path"]) / "model.safetensors")

    assert any(key.startswith("text_model") for key in clip)  # and yet it was read
    assert "classifier.weight" in mobilenet


@pytest.mark.parametrize(("name", "other"), [("clip", "dinov2"), ("dinov2", "clip"), ("mobilenet_v2", "dinov2")])
def test_the_weights_of_another_model_are_refused(make, options, name, other):
    with pytest.raises(DataError, match="not the weights of a"):
        make(name, path=options[other]["path"])


@pytest.mark.parametrize("name", NAMES)
def test_missing_weights_are_named_and_can_be_fetched(make, tmp_path, name):
    with pytest.raises(MissingError, match=r"feature.path: .*is not here: .*model.safetensors"):
        make(name, path=str(tmp_path))
    assert of_plugin(name, ["path=somebody/something"])[0].path == "somebody/something"


def test_a_side_that_is_no_multiple_of_the_patch_is_refused(make):
    with pytest.raises(ConfigError, match="multiple of the model's patch, 14"):
        make("dinov2", side=30)


# The Inception of the Fréchet inception distance


def steady(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return random weights through which a signal passes, the same ones on every machine."""
    found = {}
    for at, name in enumerate(sorted(name for name in state if not name.endswith("num_batches_tracked"))):
        value = state[name]
        noise = torch.from_numpy(2 * np.random.default_rng(at).random(tuple(value.shape)) - 1)
        if value.ndim == 4:
            noise = noise * math.sqrt(6 / value[0].numel())
        elif name.endswith(("running_var", "bn.weight")):
            noise = 1 + 0.3 * noise
        elif value.ndim == 1:
            noise = 0.1 * noise
        found[name] = noise.float()
    return found


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """Write a file in pytorch-fid's layout: no counts of batches, and a classifier of 1008 answers."""
    file = tmp_path_factory.mktemp("published") / "pt_inception.safetensors"
    classifier = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    save_file(steady(Network().state_dict()) | classifier, file)
    return file


# of each path of the last block, what torch-fidelity 0.4 gives for these weights and the image below
GOLDEN = {3: 0.9465, 200: 1.5138, 400: 1.2957, 800: 0.3358, 1100: 0.6015, 1500: 0.0528, 1900: 0.7402, 2040: 0.0072}


def test_inception_gives_what_an_independent_implementation_gives(published):
    y, x = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    image = torch.stack([(5 * x + 3 * y) % 256, (x * y) % 256, (255 - 6 * x) % 256])[None].float()
    network = Inception(Inception.Config(path=str(published), resize="legacy_tf"))

    features = network(image / 127.5 - 1)[0]

    assert {at: float(features[at]) for at in GOLDEN} == pytest.approx(GOLDEN, abs=2e-4)


def test_inception_has_the_published_layout(published):
    keys = load_file(published)
    shapes = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_5d.branch_pool.conv.weight": (64, 288, 1, 1),
        "Mixed_6a.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6c.branch7x7dbl_5.conv.weight": (192, 160, 1, 7),
        "Mixed_6e.branch7x7_3.conv.weight": (192, 192, 7, 1),
        "Mixed_7a.branch7x7x3_4.bn.bias": (192,),
        "Mixed_7c.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
    }

    learned = [value for key, value in keys.items() if key.endswith(("conv.weight", "bn.weight", "bn.bias"))]

    assert len(keys) == 94 * 5 + 2
    assert sum(value.numel() for value in learned) == 21_785_568
    assert {name: tuple(keys[name].shape) for name in shapes} == shapes


def test_inception_averages_without_the_padding_and_ends_in_a_maximum():
    network = Network()
    flat, spike = torch.ones(1, 1280, 8, 8), torch.zeros(1, 2048, 8, 8)
    spike[..., 4, 4] = 1
    for block in (network.Mixed_7b, network.Mixed_7c):
        block.branch_pool = torch.nn.Identity()

    assert torch.equal(network.Mixed_7b.pooled(flat), flat)
    assert network.Mixed_7c.pooled(spike)[0, 0].sum() == 9


def test_inception_refuses_a_pickle_and_foreign_weights_and_finds_a_folder(published, tmp_path):
    with pytest.raises(DataError, match="is a pickle, and weights are read as safetensors only"):
        Inception(Inception.Config(path="pt_inception-2015-12-05-6726825d.pth"))
    save_file({"Conv2d_1a_3x3.conv.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="not the weights of a FID Inception"):
        Inception(Inception.Config(path=str(tmp_path)))
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pt_inception-2015-12-05-6726825d.safetensors").symlink_to(published)
    assert Inception(Inception.Config(path=str(tmp_path))).fingerprint().startswith("inception-299px-antialiased-")


@pytest.mark.skipif(not (WEIGHTS / "config.json").is_file(), reason="no real weights: ANASTYLE_MOBILENET_V2=FOLDER")
def test_the_real_mobilenet_sees_more_difference_between_pictures_than_in_a_little_light():
    cls = FEATURES.get("mobilenet_v2")
    network = cls(cls.Config(path=str(WEIGHTS)))
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    disc, stripes = ((x**2 + y**2) < 0.3).float(), torch.sin(20 * x)

    pictures = torch.stack([disc, disc + 0.02, stripes])[:, None].expand(-1, 3, -1, -1)

    first, lighter, other = network(pictures * 0.8 - 0.4)

    assert network.side == 224
    assert (first - other).norm() > 5 * (first - lighter).norm()
