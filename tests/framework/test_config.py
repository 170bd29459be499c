"""A section becomes a class and its typed options, or an error that says where, what and the way out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from anastyle.config import load_yaml, parse_word, plain, read_typed, refuse, section, typed
from anastyle.errors import ConfigError
from anastyle.registry import FUSERS


@dataclass
class Options:
    hidden_dim: int = 3
    rate: float = 1e-4
    mode: Literal["fast", "slow"] = "fast"
    sizes: list[int] = field(default_factory=lambda: [1, 2])
    path: Path | None = None
    weights: dict[str, float] = field(default_factory=dict)


@dataclass
class Strict:
    root: str
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError("count=0: must be at least 1.")


@dataclass
class Switches:
    precision: Literal["no", "bf16"] = "bf16"
    checkpointing: Literal["auto", "on", "off"] = "auto"
    shown: bool = True
    name: str = ""


def test_mapping_is_filled_with_defaults_and_types():
    options = typed(Options, {"rate": 1, "sizes": [4], "path": "a/b", "weights": {"dice": 10}}, "fuser")

    assert options == Options(rate=1.0, sizes=[4], path=Path("a/b"), weights={"dice": 10.0})
    assert isinstance(options.rate, float)
    assert isinstance(options.weights["dice"], float)


def test_plain_is_what_json_can_hold():
    assert plain(Options(path=Path("a/b")))["path"] == "a/b"


def test_unknown_option_suggests_the_closest_and_lists_all():
    with pytest.raises(ConfigError) as error:
        typed(Options, {"hiden_dim": 4}, "fuser")

    assert str(error.value).splitlines() == [
        "fuser.hiden_dim: no such option. Did you mean 'hidden_dim'?",
        "  options: hidden_dim, rate, mode, sizes, path, weights",
    ]


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"hidden_dim": "wide"}, ["fuser.hidden_dim", "'wide'", "int"]),
        ({"hidden_dim": None}, ["fuser.hidden_dim", "int"]),
        ({"hidden_dim": 2.5}, ["fuser.hidden_dim", "2.5"]),
        ({"mode": "medium"}, ["fuser.mode", "fast", "slow"]),
        ({"sizes": [1, "two"]}, ["fuser.sizes[1]", "two"]),
        ({"sizes": 7}, ["fuser.sizes", "list[int]"]),
        ({"weights": {"dice": "much"}}, ["fuser.weights.dice", "much"]),
    ],
)
def test_wrong_type_says_where_and_what_it_takes(mapping, words):
    with pytest.raises(ConfigError) as error:
        typed(Options, mapping, "fuser")

    assert all(word in str(error.value) for word in words)


def test_all_problems_come_at_once_in_five_lines():
    wrong = {"hiden_dim": 1, "rate": "slow", "mode": 3, "sizes": 7, "colour": "red"}

    with pytest.raises(ConfigError) as error:
        typed(Options, wrong, "fuser")

    lines = str(error.value).splitlines()
    assert lines[0] == "5 problems"
    assert lines[-1] == "  and 2 more"
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("${oc.env:HOME}", "interpolations are not read here"),
        ("a ${rate} b", "interpolations are not read here"),
        ("???", "is left open"),
        (float("nan"), "is not a number"),
        ({"_target_": "os.system"}, "class paths are not read here"),
        ({1: 2}, "a key must be a word"),
    ],
)
def test_what_is_no_plain_value_is_refused(value, reason):
    for where in ({"weights": value}, {"sizes": [1, value]}):
        _, problems = read_typed(Options, where, "fuser")

        assert len(problems) == 1
        assert reason in problems[0]


def test_option_without_default_must_be_set():
    with pytest.raises(ConfigError, match=r"data\.root: has no default and must be set"):
        typed(Strict, {}, "data")


def test_what_a_config_refuses_itself_keeps_its_place():
    with pytest.raises(ConfigError, match="data: count=0: must be at least 1"):
        typed(Strict, {"root": "a", "count": 0}, "data")


def test_section_returns_the_named_class():
    cls, config = section(FUSERS, {"name": "hffm", "tokens": 2}, "fuser")

    assert cls is FUSERS.get("hffm")
    assert type(config) is cls.Config
    assert config.tokens == 2


def test_unknown_component_suggests_the_closest():
    with pytest.raises(
        ConfigError, match=r"fuser\.name: there is no fuser 'hfmf'\. Did you mean 'hffm'\?\n  available: "
    ):
        section(FUSERS, {"name": "hfmf"}, "fuser")


@pytest.mark.parametrize("mapping", ["hffm", {"tokens": 2}, {"name": 3}, None, ["hffm"]])
def test_section_that_names_nothing_is_refused(mapping):
    with pytest.raises(ConfigError, match="fuser"):
        section(FUSERS, mapping, "fuser")


def test_single_problem_comes_whole_behind_its_heading():
    with pytest.raises(ConfigError) as error:
        refuse(["a: wrong\n  options: b"], "x.yaml")

    assert str(error.value) == "x.yaml: a: wrong\n  options: b"


def test_no_problem_is_no_error():
    refuse([], "x.yaml")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("- 1\n", "is a list"),
        ("name: a\nname: b\n", "x.yaml:2: found duplicate key name"),
        ("name: !!python/object:os.system {}\n", "x.yaml:1: tags are not read here"),
        ("name: [1,\n", "x.yaml:2: "),
        ("name:\t1\n\tb: 2\n", "x.yaml"),
        ("\x00", "x.yaml"),
    ],
)
def test_file_that_is_no_experiment_is_refused(tmp_path, text, reason):
    file = tmp_path / "x.yaml"
    file.write_text(text)

    with pytest.raises(ConfigError) as error:
        load_yaml(file)

    assert reason in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"name: \xff\xfe\n")

    with pytest.raises(ConfigError, match=r"x\.yaml"):
        load_yaml(tmp_path / "x.yaml")


def test_missing_file_suggests_its_neighbour(tmp_path):
    (tmp_path / "ablation.yaml").write_text("name: a")

    with pytest.raises(ConfigError, match=r"ablatoin\.yaml: there is no such file\. Did you mean 'ablation\.yaml'\?"):
        load_yaml(tmp_path / "ablatoin.yaml")


def test_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is a folder"):
        load_yaml(tmp_path)


def test_small_floats_are_floats(tmp_path):
    (tmp_path / "x.yaml").write_text("lr: 1e-4\n")

    assert load_yaml(tmp_path / "x.yaml") == {"lr": 1e-4}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("a.b=3", 3),
        ("a.b=1e-4", 1e-4),
        ("a.b=null", None),
        ("a.b=[1,2]", [1, 2]),
        ("a.b=x=y", "x=y"),
        ("a.b=true", True),
    ],
)
def test_words_are_read_as_yaml(word, value):
    assert parse_word(word) == ("a.b", value)


def test_words_that_yaml_takes_for_booleans_stay_words_where_words_are_asked_for():
    words = ["precision=no", "checkpointing=on", "shown=no", "name=no"]

    with pytest.raises(ConfigError, match="mode"):
        typed(Options, {"mode": False}, "fuser")
    assert typed(Switches, dict(map(parse_word, words)), "fuser") == Switches("no", "on", False, "False")


@pytest.mark.parametrize("word", ["a.b", "=3", "a..b=3", ".a=3", "a.=3", "a='x"])
def test_words_of_another_form_are_refused(word):
    with pytest.raises(ConfigError, match="on the command line"):
        parse_word(word)
