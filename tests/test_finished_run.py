"""A finished run over checkpoints in the hub's layout: sampled, exported, read back by stock loaders."""

import csv
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, PixArtTransformer2DModel
from PIL import Image

from anastyle import MissingError, NumericalError, Sample
from anastyle.cli import main
from anastyle.experiment import read
from anastyle.painting import export, finished, origin, paint
from anastyle.painting.chain import Chain, Guidance
from anastyle.painting.finished import FinishedRun
from anastyle.painting.painted import NOTE, provenance
from anastyle.painting.prompts import Prompt, by_factor
from anastyle.run import run_experiment
from anastyle_plugins.exports import load_adapter
from anastyle_plugins.exports.adapter import load_peft
from anastyle_plugins.exports.formats import probe

SCRIPT = Path(__file__).parents[1] / "launch" / "full_size_check.py"
FIELDS = ["--anatomy", "a round lesion", "--style", "red, smooth"]
PROMPTS = [by_factor("a round lesion", "red"), Prompt("a star"), by_factor("a spot", ""), by_factor("", "blue-grey")]


def script() -> Any:
    """Return the full-size check, whose writers these tests use at tiny sizes."""
    spec = importlib.util.spec_from_file_location("full_size_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the checkpoints and train two runs of two steps: the paper's parts, and parts that learn here."""
    check, folder = script(), tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    check.write_checkpoints(folder, check.TINY, tiny=True)
    file = check.write_experiment(folder, check.TINY, tiny=True)
    own = ["name=own", "embedder.name=tfidf_svd", "embedder.dim=8", "embedder.pooled_dim=12", "autoencoder.path=null",
           "autoencoder.widths=[8,8]", "autoencoder.groups=4", "stages.diffuse.lr=0.1",
           "stages.autoencode.steps=1", "stages.autoencode.batch_size=4",
           "stages.autoencode.weights={reconstruction: 1, gradient: 1, kl: 0.001}"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANASTYLE_TRACKING", "off")
        for words in (["stages.diffuse.lr=0.1"], own):
            assert run_experiment(read(file, words)) == 0
    shutil.rmtree(folder / "runs" / "data")  # from here on there is no training image
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """Return the run of the paper's parts."""
    return folder / "runs" / "full_size" / "default" / "seed-42"


@pytest.fixture(scope="module")
def own(folder: Path) -> Path:
    """Return the run whose embedder and autoencoder were fitted to its data."""
    return folder / "runs" / "own" / "default" / "seed-42"


@pytest.fixture(scope="module")
def chain(run: Path) -> Chain:
    """Return the run's chain, its LoRA apart."""
    return FinishedRun.open(run).chain()


@pytest.fixture(scope="module")
def exported(run: Path, folder: Path) -> Path:
    """Export the run in every format."""
    assert main(["export", str(run), str(folder / "export")]) == 0
    return folder / "export"


def sample(run: Path, out: Path, *words: str) -> int:
    return main(["sample", str(run), *words, "--out", str(out)])


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


# Sampling


def test_an_image_does_not_depend_on_its_batch(chain: Chain) -> None:
    seeds = [0, 1, 2, 3]

    together = chain.paint(PROMPTS, seeds).image
    alone = torch.cat([chain.paint([p], [s]).image for p, s in zip(PROMPTS, seeds, strict=True)])

    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-2


def test_a_merged_lora_paints_the_same(run: Path, chain: Chain) -> None:
    merged = FinishedRun.open(run).chain()
    merged.backbone.merge()

    ours, theirs = chain.paint(PROMPTS, [0] * 4).image, merged.paint(PROMPTS, [0] * 4).image

    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_each_factor_is_read_off_its_own_words(chain: Chain) -> None:
    reader, device = chain.reader, chain.device
    one, other = by_factor("a round lesion", "red"), by_factor("a round lesion", "blue-grey")

    asked = reader.conditions([one, other], device)["both"].tokens  # (2, 2, width): anatomy, style

    torch.testing.assert_close(asked[0, 0], asked[1, 0])
    assert (asked[0, 1] - asked[1, 1]).abs().max() > 1e-4
    read = reader.read(["a round lesion"], device)
    torch.testing.assert_close(asked[:1, :1], reader.fuser(read).tokens[:, :1])


def test_a_factor_without_words_is_left_open(chain: Chain) -> None:
    asked = chain.reader.conditions([by_factor("a round lesion", "")], chain.device)

    torch.testing.assert_close(asked["both"].tokens[:, 1], asked["neither"].tokens[:, 1])
    assert (asked["both"].tokens[:, 0] - asked["neither"].tokens[:, 0]).abs().max() > 1e-4


def test_guidance_by_factor_is_its_own(chain: Chain) -> None:
    one, other, same = (
        chain.paint(PROMPTS[:1], [0], guidance=guidance).image
        for guidance in (Guidance(2.0), Guidance(2.0, style=6.0), Guidance(2.0))
    )

    assert (one - other).abs().max() > 1e-6
    torch.testing.assert_close(one, same, rtol=0, atol=0)


def test_a_picture_of_the_older_guidance_by_factor_is_painted_anew(run: Path, chain: Chain) -> None:
    wish = paint.Wish(PROMPTS[:1], [0], guidance_anatomy=2.0)

    about = paint.provenance_of(FinishedRun.open(run), chain, wish, PROMPTS[0], 0)
    plain = paint.provenance_of(FinishedRun.open(run), chain, paint.Wish(PROMPTS[:1], [0]), PROMPTS[0], 0)

    assert about["guide"] == 2
    assert "guide" not in plain


def test_half_precision_is_near(chain: Chain) -> None:
    full, half = chain.paint(PROMPTS, [0] * 4), chain.paint(PROMPTS, [0] * 4, bf16=True)

    assert half.image.dtype == torch.float32
    assert 0 < (full.image - half.image).abs().max() < 0.1


def test_images_are_painted_once_and_carry_their_origin(run: Path, tmp_path: Path, capsys: Any) -> None:
    assert sample(run, tmp_path, *FIELDS, "--seeds", "0-2", "--grid", "--batch-size", "2") == 0

    paths = sorted(tmp_path.glob("*-s*.png"))
    about = provenance(paths[1])
    assert about is not None
    assert (about["anatomy"], about["style"], about["seed"]) == ("a round lesion", "red, smooth", 1)
    assert about["diffuse"] == FinishedRun.open(run).stages["diffuse"]
    assert (about["run"], about["steps"], about["guidance"]) == ("full_size/default/seed-42", 2, 4.5)
    with Image.open(paths[0]) as image:
        assert image.text["Comment"] == NOTE  # type: ignore[attr-defined]
    assert Image.open(tmp_path / "grid.png").size == (3 * 18 - 2, 16)
    rows = list(csv.DictReader((tmp_path / "samples.csv").open()))
    assert [(row["image"], row["seed"]) for row in rows] == [(p.name, str(i)) for i, p in enumerate(paths)]
    assert rows[0]["text"] == "a round lesion; red, smooth."
    assert "3 images painted, 0 were there" in capsys.readouterr().out


def test_a_second_time_only_what_is_not_whole_is_painted(run: Path, tmp_path: Path, capsys: Any) -> None:
    sample(run, tmp_path, *FIELDS, "--seeds", "0-2")
    first, second, third = sorted(tmp_path.glob("*-s*.png"))
    before = pixels(second)
    second.write_bytes(second.read_bytes()[:-40])  # cut short
    third.unlink()
    kept = first.stat().st_mtime_ns
    capsys.readouterr()

    sample(run, tmp_path, *FIELDS, "--seeds", "0-2")

    assert "2 images painted, 1 were there" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == kept
    assert np.abs(pixels(second) - before).max() <= 1
    sample(run, tmp_path, *FIELDS, "--seeds", "0-2", "--steps", "3")
    assert "3 images painted, 0 were there" in capsys.readouterr().out
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_csv_names_files_folders_and_seeds(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.csv"
    file.write_text("id,prompt,anatomy,style,label,seed\na,a star,,,nv,7\nb,,a spot,red,,\n")

    assert sample(run, tmp_path / "out", "--prompts", str(file), "--seeds", "1,2") == 0

    images = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert images == {"nv/a-s7.png", "b-s1.png", "b-s2.png"}


def test_painted_images_are_a_set_of_their_own(run: Path, tmp_path: Path) -> None:
    sample(run, tmp_path / "out", *FIELDS, "--seeds", "0-5")

    assert main(["prepare", "folder", str(tmp_path / "out"), str(tmp_path / "set"), "metadata=samples.csv"]) == 0


def test_masks_are_written_where_a_backbone_makes_them(tmp_path: Path) -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 0.7

    paint.store(tmp_path, Sample(torch.zeros(1, 3, 4, 4), mask), [{"image": "a.png", "seed": 0}])

    assert np.asarray(Image.open(tmp_path / "masks" / "a.png"))[0].tolist() == [255, 255, 0, 0]
    assert provenance(tmp_path / "a.png") == {"image": "a.png", "seed": 0, "mask": "masks/a.png"}
    assert not paint.same_picture(tmp_path / "a.png", {"image": "a.png", "seed": 1})
    assert paint.same_picture(tmp_path / "a.png", {"image": "a.png", "seed": 0})
    (tmp_path / "masks" / "a.png").unlink()
    assert not paint.same_picture(tmp_path / "a.png", {"image": "a.png", "seed": 0})


def test_a_picture_that_is_not_finite_is_not_written(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(Chain, "paint", lambda *_, **__: Sample(torch.full((1, 3, 4, 4), torch.nan)))

    assert sample(run, tmp_path / "out", *FIELDS) == 4
    assert not (tmp_path / "out").exists()


def test_a_fit_on_captions_needs_no_training_images(own: Path, tmp_path: Path) -> None:
    stored = FinishedRun.open(own).stored("diffuse")
    assert (stored / origin.FIT).is_file()

    assert sample(own, tmp_path, *FIELDS) == 0


def test_a_pretrained_embedder_is_not_stored_again(run: Path) -> None:
    stored = FinishedRun.open(run).stored("diffuse")

    assert not (stored / origin.FIT).exists()
    record = origin.read_origin(stored)
    assert record["data"]["dataset"] == "phantom"
    assert set(record["files"]) == {"autoencoder", "embedder", "aligner", "fuser", "backbone"}


# What cannot be sampled


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["--prompt", " "], 2, "the prompt is empty"),
        ([], 2, "sample takes one of --prompts CSV"),
        (["--prompt", "a", "--style", "b"], 2, "sample takes one of --prompts CSV"),
        ([*FIELDS, "--seeds", "3-1"], 2, "'3-1' is no seed"),
        ([*FIELDS, "--steps", "0"], 2, "--steps 0: must be at least 1."),
        ([*FIELDS, "--batch-size", "0"], 2, "--batch-size 0: must be at least 1."),
        ([*FIELDS, "--guidance", "nan"], 2, "--guidance nan: must be at least 0."),
        (["--prompts", "absent.csv"], 3, "there is no such file of prompts"),
    ],
)
def test_words_that_cannot_be_meant(
    run: Path, tmp_path: Path, words: list[str], code: int, reason: str, capsys: Any
) -> None:
    assert sample(run, tmp_path, *words) == code

    assert reason in capsys.readouterr().err


@pytest.fixture
def broken(run: Path, tmp_path: Path) -> Path:
    """Return a copy of the run's folder in a study of its own, with no store beside it."""
    copy = tmp_path / "runs" / "study" / "variant" / "seed-42"
    shutil.copytree(run, copy)
    return copy


def set_status(folder: Path, **fields: Any) -> None:
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**status, **fields}))


def test_a_run_that_is_not_there(run: Path, tmp_path: Path, capsys: Any) -> None:
    assert sample(run.with_name("seed-43"), tmp_path, *FIELDS) == 3
    assert "there is no such run. Did you mean 'seed-42'?" in capsys.readouterr().err
    assert sample(run.parents[1], tmp_path, *FIELDS) == 2
    error = capsys.readouterr().err
    assert "is no run folder" in error
    assert str(run) in error


def test_a_run_that_cannot_be_used(broken: Path, tmp_path: Path, capsys: Any) -> None:
    assert sample(broken, tmp_path, *FIELDS) == 3
    assert "the diffuse stage of study/variant/seed-42 is not there, whole" in capsys.readouterr().err

    set_status(broken, stages={"align": "00"})
    assert sample(broken, tmp_path, *FIELDS) == 2
    assert "trains nothing that paints (stages.diffuse is off)" in capsys.readouterr().err

    set_status(broken, stages={"paint": "00"})
    assert sample(broken, tmp_path, *FIELDS) == 2
    assert "names a stage 'paint'" in capsys.readouterr().err

    set_status(broken, status="stopped")
    assert sample(broken, tmp_path, *FIELDS) == 3
    assert "this run is not finished (stopped)" in capsys.readouterr().err


def test_other_files_than_were_trained_on_are_refused(run: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(origin, "files_of", lambda config: {"backbone": "other", "autoencoder": "other"})

    assert sample(run, tmp_path, *FIELDS) == 2

    error = capsys.readouterr().err
    assert "files that this run was trained on have changed" in error
    assert "backbone: " in error


def test_an_old_run_without_its_fit_asks_for_the_captions(own: Path, monkeypatch: Any) -> None:
    def absent(*_: Any) -> Any:
        raise MissingError("no set")

    monkeypatch.setattr(finished, "load_fit", lambda *_: None)
    monkeypatch.setattr(finished, "prepared", absent)

    with pytest.raises(MissingError, match="no set"):
        FinishedRun.open(own).chain()


# Export


def test_the_pipeline_paints_what_sample_paints(exported: Path, run: Path, tmp_path: Path) -> None:
    sample(run, tmp_path, *FIELDS, "--seeds", "3-4")
    pipe: Any = DiffusionPipeline.from_pretrained(exported / "pipeline", local_files_only=True)

    for path in sorted(tmp_path.glob("*-s*.png")):
        about = provenance(path)
        assert about is not None
        generator = torch.Generator().manual_seed(about["seed"])
        image = pipe(anatomy="a round lesion", style="red, smooth", generator=generator).images[0]
        assert np.abs(np.asarray(image).astype(int) - pixels(path)).max() <= 1


def test_the_pipeline_takes_prompts_lists_and_options(exported: Path, chain: Chain) -> None:
    pipe: Any = DiffusionPipeline.from_pretrained(exported / "pipeline", local_files_only=True)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]

    images = pipe(
        ["a star", "a spot"], generator=generators, num_inference_steps=3, guidance_scale=1.5, output_type="pt"
    ).images

    expected = chain.paint([Prompt("a star"), Prompt("a spot")], [0, 1], steps=3, guidance=Guidance(1.5)).image
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="give prompt, or anatomy and style"):
        pipe("a star", style="red")
    with pytest.raises(ValueError, match="lists of different lengths"):
        pipe(anatomy=["a", "b"], style="red")


def test_the_pipeline_folder_stands_alone(exported: Path, folder: Path, tmp_path: Path, chain: Chain) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(exported / "pipeline", moved)
    text = (moved / "text" / "config.json").read_text() + (moved / "model_index.json").read_text()

    pipe: Any = DiffusionPipeline.from_pretrained(moved, local_files_only=True)

    assert str(folder) not in text
    asked = [reader.conditions(PROMPTS, chain.device) for reader in (pipe.text.reader, chain.reader)]
    torch.testing.assert_close(asked[0]["both"].tokens, asked[1]["both"].tokens, rtol=0, atol=1e-6)
    assert not [path for path in moved.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".py")]


def test_the_adapters_load_over_the_hubs_transformer(exported: Path, folder: Path, chain: Chain) -> None:
    place = folder / "PixArt-XL-2-512x512"
    bases = [PixArtTransformer2DModel.from_pretrained(place, subfolder="transformer") for _ in range(2)]
    backbone: Any = chain.backbone
    expected, bare = probe(backbone.transformer, backbone), probe(bases[0], backbone)  # type: ignore[arg-type]

    one, two = load_adapter(bases[0], exported / "adapter"), load_peft(bases[1], exported / "peft")

    assert (expected - bare).abs().max() > 1e-4, "two steps changed nothing: this test could not fail"
    torch.testing.assert_close(probe(one, backbone), expected)
    torch.testing.assert_close(probe(two, backbone), expected)


def test_an_autoencoder_trained_here_is_exported_with_its_scale(own: Path, tmp_path: Path) -> None:
    assert main(["export", str(own), str(tmp_path / "out"), "--format", "pipeline"]) == 0

    vae: Any = AutoencoderKL.from_pretrained(tmp_path / "out" / "pipeline" / "vae")
    backbone: Any = FinishedRun.open(own).chain().backbone
    assert vae.config.scaling_factor == backbone.autoencoder.scale.item() != 1.0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["COMPLETE.json", "README.md", "pipeline"]


def test_the_model_card_says_what_must_be_said(exported: Path) -> None:
    text = (exported / "README.md").read_text()

    assert "Not for clinical use" in text
    assert "licence: not recorded" in text
    assert "set: phantom" in text
    assert "Nothing was measured." in text
    assert "trained with: anastyle" in text


def test_an_export_that_fails_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    from anastyle_plugins.exports import formats

    def differs(*_: Any, **__: Any) -> None:
        raise NumericalError("pipeline: the painted image: read back it differs")

    monkeypatch.setattr(formats, "compare_adapters", differs)

    assert main(["export", str(run), str(tmp_path / "out")]) == 4
    assert not list(tmp_path.iterdir())
    assert "read back it differs" in capsys.readouterr().err


def test_an_export_overwrites_nothing(run: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "mine.txt").touch()

    assert main(["export", str(run), str(tmp_path)]) == 2
    assert "is in the way" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("formats", "reason"),
    [((), "backbone 'pixart_lora' offers no format to export to"), (("pipeline",), "has no format 'adapter'")],
)
def test_a_backbone_without_the_format_refuses(
    run: Path, tmp_path: Path, formats: tuple, reason: str, monkeypatch: Any, capsys: Any
) -> None:
    whole = export.FinishedRun.chain

    def without(self: FinishedRun) -> Chain:
        chain = whole(self)
        chain.backbone.exports = formats
        return chain

    monkeypatch.setattr(export.FinishedRun, "chain", without)

    assert main(["export", str(run), str(tmp_path / "out"), "--format", "adapter"]) == 2
    assert reason in capsys.readouterr().err
