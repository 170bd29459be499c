"""The paper's three experiments say what the paper says, and a compact one on real images can be read."""

from pathlib import Path

import pytest

from anastyle.errors import ConfigError
from anastyle.experiment import Run, read
from anastyle.plan import active

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SETS = ("ham10000", "kvasir_seg", "busi")


def spelled_out(name: str) -> Run:
    """Return an experiment as it is with the phantom set in the place of its data."""
    return read(EXPERIMENTS / f"{name}.yaml", ["data.name=phantom"]).runs[0]


@pytest.mark.parametrize("name", SETS)
def test_the_settings_are_the_papers(name: str) -> None:
    config = spelled_out(name).config
    disentangle, align, diffuse, generate = (
        config["stages"][stage] for stage in ("disentangle", "align", "diffuse", "generate")
    )

    assert config["data"]["image_size"] == 512
    assert (config["encoder"]["size"], config["encoder"]["pool"], config["encoder"]["adain"]) == (
        224, "occupancy", "shared",
    )  # fmt: skip
    assert [s["epochs"] for s in (disentangle, align, diffuse)] == [60, 60, 15]
    assert [s["batch_size"] for s in (disentangle, align, diffuse)] == [4, 32, 1]
    assert [s["optimizer"] for s in (disentangle, align, diffuse)] == ["adam", "adam", "adamw"]
    assert {s["lr"] for s in (disentangle, align, diffuse)} == {1e-4}
    assert disentangle["betas"] == [0.5, 0.999]
    assert disentangle["weights"] == {"reconstruction": 1, "kl": 0.01, "dice": 10, "z_regression": 1}
    assert align["weights"] == {"anatomy": 1, "style": 1, "reconstruction": 0.5}
    assert diffuse["weights"] == {"denoising": 1, "colour": 0.05}
    assert (diffuse["schedule"], diffuse["warmup"], diffuse["weight_decay"]) == ("cosine", 500, 0.01)
    assert (diffuse["max_grad_norm"], diffuse["precision"]) == (1, "bf16")
    assert (config["backbone"]["lora_rank"], config["backbone"]["colour_every"]) == (8, 500)
    assert (generate["steps"], generate["guidance"], generate["batch_size"]) == (50, 4.5, 8)


def test_each_set_is_studied_apart() -> None:
    runs = [spelled_out(name) for name in SETS]

    assert [run.study for run in runs] == list(SETS)
    assert [run.config["stages"]["generate"]["images"] for run in runs] == [2003, 200, 156]


def test_the_papers_ablation_runs_at_its_scale() -> None:
    experiment = read(EXPERIMENTS / "ablation.yaml", ["base=ham10000.yaml", "data.name=phantom"])

    assert list(experiment.variants) == ["full", "no_attributes", "naive_concat", "no_disentanglement"]
    assert {config["backbone"]["name"] for config in experiment.variants.values()} == {"pixart_lora"}


def test_weights_for_real_images_must_be_named() -> None:
    with pytest.raises(ConfigError, match=r"autoencoder\.path: has no default and must be set"):
        read(EXPERIMENTS / "real_256.yaml")


def test_real_images_are_painted_from_scratch_at_256_pixels(tmp_path: Path) -> None:
    config = read(EXPERIMENTS / "real_256.yaml", [f"autoencoder.path={tmp_path}"]).runs[0].config

    assert config["data"]["image_size"] == 256
    assert (config["backbone"]["path"], config["backbone"]["layers"]) == (None, 12)
    assert config["stages"]["diffuse"]["weights"] == {"denoising": 1}


def test_an_autoencoder_that_is_used_as_it_is_is_not_trained(tmp_path: Path) -> None:
    taef2 = read(EXPERIMENTS / "real_256.yaml", [f"autoencoder.path={tmp_path}"]).runs[0]
    tuned, frozen = (
        read(EXPERIMENTS / "folder.yaml", [f"autoencoder.tune={tune}"]).runs[0] for tune in ("true", "false")
    )

    assert taef2.config["stages"]["autoencode"] is not None
    assert [active(run)[0] for run in (taef2, tuned, frozen)] == ["disentangle", "autoencode", "disentangle"]
