"""An experiment file becomes runs: layers, variants, seeds, and every default spelled out."""

import json
from pathlib import Path

import pytest

from anastyle.errors import ConfigError
from anastyle.experiment import read

BASE = """
name: tiny
data: {name: phantom, train: 8, test: 4, image_size: 16}
encoder: {name: sdnet, style_dim: 4}
aligner: {name: clinicalbert_mlp, hidden_dim: 32}
fuser: {name: hffm, tokens: 4}
stages:
  disentangle: {steps: 2, weights: {dice: 10, kl: 0.01}}
  evaluate: {}
"""
VARIANTS = """
base: base.yaml
seeds: [1, 2]
variants:
  full: {}
  naive: {fuser: {name: concat}}
  plain: {encoder: null, aligner: {name: token_reader}, fuser: {name: text_tokens}}
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "variants.yaml").write_text(VARIANTS)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    (folder / "x.yaml").write_text(text)
    return folder / "x.yaml"


def refusal(path: Path, *words: str) -> str:
    with pytest.raises(ConfigError) as error:
        read(path, list(words))
    message = str(error.value)
    assert len(message.splitlines()) <= 5
    return message


def test_runs_are_variants_by_seeds_seed_by_seed(files):
    experiment = read(files / "variants.yaml")

    assert [(run.variant, run.seed) for run in experiment.runs] == [
        ("full", 1), ("naive", 1), ("plain", 1), ("full", 2), ("naive", 2), ("plain", 2),
    ]  # fmt: skip
    assert {run.study for run in experiment.runs} == {"tiny"}
    assert experiment.run_folder(experiment.runs[0]) == Path("runs/tiny/full/seed-1")


def test_without_variants_there_is_one(files):
    experiment = read(files / "base.yaml")

    assert [(run.variant, run.seed) for run in experiment.runs] == [("default", 42)]


def test_every_default_is_spelled_out(files):
    short = read(files / "base.yaml")
    spelled = short.variants["default"]
    fuser = {key: value for key, value in spelled["fuser"].items() if key != "name"}

    again = read(files / "base.yaml", [f"fuser.{option}={json.dumps(value)}" for option, value in fuser.items()])

    assert set(fuser) > {"tokens"}
    assert again.variants == short.variants
    assert spelled["stages"]["disentangle"]["lr"] == 1e-4
    assert spelled["stages"]["evaluate"]["bootstrap"] == 200
    assert spelled["stages"]["diffuse"] is None
    assert spelled["backbone"] is None
    assert spelled["data"] | {"name": "phantom", "root": None, "captions": "attributes", "train": 8} == spelled["data"]


def test_runs_survive_json_and_do_not_share_their_config(files):
    first, *_, last = read(files / "variants.yaml").runs

    assert json.loads(json.dumps(first.config)) == first.config
    first.config["stages"]["disentangle"]["steps"] = 99
    assert read(files / "variants.yaml").runs[-1].config == last.config
    assert last.config["stages"]["disentangle"]["steps"] == 2


def test_another_component_starts_from_its_own_defaults(files):
    variants = read(files / "variants.yaml").variants

    assert variants["full"]["fuser"]["tokens"] == 4
    assert variants["naive"]["fuser"]["name"] == "concat"
    assert (
        variants["naive"]["fuser"] == read(files / "base.yaml", ["fuser={name: concat}"]).variants["default"]["fuser"]
    )
    assert variants["plain"]["encoder"] is None


def test_the_same_component_named_again_keeps_its_options(files):
    spelled = read(files / "base.yaml", ["fuser={name: hffm}"]).variants["default"]

    assert spelled["fuser"]["tokens"] == 4


def test_the_command_line_comes_last(files):
    experiment = read(files / "variants.yaml", ["stages.disentangle.steps=7", "fuser.name=concat", "only=[full,naive]"])

    assert [experiment.variants[name]["fuser"]["name"] for name in ("full", "naive")] == ["concat", "concat"]
    assert experiment.variants["full"]["stages"]["disentangle"]["steps"] == 7
    assert experiment.variants["full"]["stages"]["disentangle"]["weights"] == {"dice": 10.0, "kl": 0.01}


def test_words_do_not_make_variants_the_same(files):
    path = write(files, "base: base.yaml\nvariants: {full: {}, label: {data: {captions: class_label}}}")

    variants = read(path, ["data.captions=template", "stages.disentangle.steps=7"]).variants

    assert [config["data"]["captions"] for config in variants.values()] == ["template", "class_label"]
    assert [config["stages"]["disentangle"]["steps"] for config in variants.values()] == [7, 7]


def test_the_order_of_words_does_not_drop_options(files):
    one = read(files / "base.yaml", ["fuser.name=concat", "fuser.tokens=2"])
    other = read(files / "base.yaml", ["fuser.tokens=2", "fuser.name=concat"])

    assert one.variants == other.variants
    assert one.variants["default"]["fuser"]["tokens"] == 2


def test_a_null_weight_is_gone_and_a_null_stage_skipped(files):
    path = write(
        files, "base: base.yaml\nvariants: {a: {stages: {disentangle: {weights: {kl: null}}, evaluate: null}}}"
    )

    stages = read(path).variants["a"]["stages"]

    assert stages["disentangle"]["weights"] == {"dice": 10.0}
    assert stages["evaluate"] is None


def test_base_on_the_command_line_replaces_the_lowest_and_keeps_the_rows_between(files):
    (files / "other.yaml").write_text(BASE.replace("tokens: 4", "tokens: 6"))
    (files / "more.yaml").write_text("base: variants.yaml\nvariants:\n  wide: {fuser: {hidden_dim: 8}}\n")

    variants = read(files / "more.yaml", ["base=other.yaml"]).variants

    assert list(variants) == ["full", "naive", "plain", "wide"]
    assert variants["wide"]["fuser"]["tokens"] == variants["full"]["fuser"]["tokens"] == 6


def test_base_on_the_command_line_replaces_the_files_own(files, monkeypatch):
    (files / "other.yaml").write_text(BASE.replace("tokens: 4", "tokens: 6").replace("name: tiny", "name: other"))

    assert read(files / "variants.yaml", ["base=other.yaml"]).variants["full"]["fuser"]["tokens"] == 6
    assert read(files / "variants.yaml", ["base=other.yaml"]).name == "other"
    monkeypatch.chdir(files.parent)
    assert read(files / "variants.yaml", [f"base={files.name}/other.yaml"]).name == "other"


def test_a_prepared_folder_takes_the_place_of_a_dataset(files):
    data = read(files / "base.yaml", ["data.root=data/busi"]).variants["default"]["data"]

    assert data == {
        "name": None, "root": "data/busi", "image_size": 16, "captions": "attributes", "on_bad_shard": "refuse",
    }  # fmt: skip
    path = write(files, "base: base.yaml\ndata: {name: null, root: data/busi, train: null}")
    assert read(path).variants["default"]["data"] == data


def test_variants_of_a_base_can_be_changed_and_dropped(files):
    path = write(files, "base: variants.yaml\nvariants: {naive: null, full: {fuser: {tokens: 1}}, more: {}}")

    experiment = read(path)

    assert list(experiment.variants) == ["full", "plain", "more"]
    assert experiment.variants["full"]["fuser"]["tokens"] == 1


def test_only_what_is_asked_for_is_read(files):
    path = write(files, "base: variants.yaml\nvariants: {broken: {fuser: {name: nonsense}}}")

    assert list(read(path, ["only=naive"]).variants) == ["naive"]
    assert refusal(path).splitlines()[0].endswith("variant broken: fuser.name: there is no fuser 'nonsense'.")


def test_unknown_variant_suggests_the_closest(files):
    message = refusal(files / "variants.yaml", "only=fulll")

    assert message == "only=fulll: no such variant. Did you mean 'full'?\n  variants: full, naive, plain"


def test_all_sections_are_read_before_anything_is_said(files):
    message = refusal(
        files / "base.yaml", "fuser.tokns=2", "aligner.hidden_dim=wide", "stages.algin={}", "data.trian=3",
    )  # fmt: skip

    lines = message.splitlines()
    assert lines[0].endswith("base.yaml: 4 problems")
    assert lines[1] == "  data.trian: no such option. Did you mean 'train'?"
    assert lines[-1] == "  and 1 more"


def test_a_fault_of_all_variants_is_told_once(files):
    assert refusal(files / "variants.yaml", "encoder.style_dimm=3", "only=[full,naive]").count("style_dimm") == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["fresh"], "'fresh' on the command line: write option=value"),
        (["fusr.name=hffm"], "fusr: no such section. Did you mean 'fuser'?"),
        (["output=${oc.env:HOME}"], "output: interpolations are not read here"),
        (["fuser=hffm"], "fuser: write a mapping, {name: hffm}"),
        (["seeds=[1,1]"], "seeds: one is there twice"),
        (["seeds=[]"], "seeds: write whole numbers"),
        (["seeds=[-1]"], "seeds: write whole numbers"),
        (["seeds=true"], "seeds: write whole numbers"),
        (["name=../elsewhere"], "becomes a folder"),
        (["variants.a/b={}"], "becomes a folder"),
        (["variants.a={fusr: 1}"], "variants.a.fusr: no such section. Did you mean 'fuser'?"),
        (["variants=3"], "variants: write a mapping"),
        (["stages=3"], "stages: write a mapping"),
        (["stages.diffuse=3"], "stages.diffuse: write a mapping"),
        (["stages.difuse.steps=3"], "stages.difuse: no such stage. Did you mean 'diffuse'?"),
        (["stages.generate.images=0"], "stages.generate: images=0: must be at least 1"),
        (["data=null"], "data: say which set"),
        (["data.root=x", "data.name=phantom"], "data: has both name and root"),
        (["data.captions=my/poems"], "captions=my/poems"),
        (["base=nowhere.yaml"], "nowhere.yaml: there is no such file"),
        (["base=3"], "base: name one YAML file"),
        (["only={}"], "only: name a variant"),
    ],
)
def test_what_the_command_line_cannot_mean_is_refused(files, words, reason):
    assert reason in refusal(files / "base.yaml", *words)


def test_one_seed_may_stand_without_brackets(files):
    assert read(files / "base.yaml", ["seeds=7"]).seeds == [7]


def test_bases_in_a_circle_are_refused(files):
    (files / "a.yaml").write_text("base: b.yaml")
    (files / "b.yaml").write_text("base: a.yaml")

    assert "base goes round in a circle" in refusal(files / "a.yaml")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("naem: x", "naem: no such section. Did you mean 'name'?"),
        ("data: {name: phantom}\nencoder: {_target_: os.system}", "encoder._target_: class paths are not read here"),
        ("data: {name: phantom, train: '${data.test}'}", "data.train: interpolations are not read here"),
        ("name: x", "data: say which set"),
    ],
)
def test_what_a_file_cannot_mean_is_refused(tmp_path, text, reason):
    assert reason in refusal(write(tmp_path, text))


def test_the_environment_does_not_leak_into_a_config(files, monkeypatch):
    monkeypatch.setenv("ANASTYLE_SECRET", "hunter2")

    assert "hunter2" not in refusal(files / "base.yaml", "description=${oc.env:ANASTYLE_SECRET}")


def test_the_document_reads_back_as_the_same_runs(files):
    from omegaconf import OmegaConf

    experiment = read(files / "variants.yaml", ["seeds=[3]"])
    path = write(
        files, OmegaConf.to_yaml(experiment.document()).replace("variants:", "data: {name: phantom}\nvariants:")
    )

    assert read(path).runs == experiment.runs


def test_a_typed_option_reaches_the_variants_whose_part_has_it():
    root = Path(__file__).parents[2]

    experiment = read(root / "experiments" / "ablation.yaml", ["fuser.hidden_dim=128", "encoder.width=4"])

    widths = {name: config["fuser"].get("hidden_dim") for name, config in experiment.variants.items()}
    assert widths.pop("base_words") == widths.pop("no_disentanglement") == 128  # their fuser has the option as well
    assert widths == {"full": 128, "no_attributes": 128, "naive_concat": 128}
    assert experiment.variants["full"]["encoder"]["width"] == 4
    assert experiment.variants["no_disentanglement"]["encoder"] is None


def test_a_typed_option_that_no_variant_has_is_refused():
    root = Path(__file__).parents[2]

    with pytest.raises(ConfigError, match="hiden_dim: no such option"):
        read(root / "experiments" / "ablation.yaml", ["fuser.hiden_dim=128"])
