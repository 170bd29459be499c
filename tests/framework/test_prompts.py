"""What is to be painted: CSV files, fields put together, seeds."""

import pytest

from anastyle.errors import ConfigError, DataError, MissingError
from anastyle.painting.prompts import Prompt, by_factor, read_prompts, read_seeds, typed_prompt


@pytest.mark.parametrize(
    ("words", "seeds"),
    [("0", [0]), ("0-3", [0, 1, 2, 3]), ("1,5,8-9", [1, 5, 8, 9]), ("4, 2-4", [4, 2, 3])],
)
def test_seeds(words, seeds):
    assert read_seeds(words) == seeds


@pytest.mark.parametrize("words", ["", "a", "3-1", "-1", "1..3", "1,", f"0-{10**9}", str(2**64)])
def test_seeds_that_are_none(words):
    with pytest.raises(ConfigError, match=r"is no seed\. Write numbers and rising ranges"):
        read_seeds(words)


def test_fields_are_put_together_as_a_caption_reads():
    assert by_factor("a round lesion.", " brown; ").text == "a round lesion; brown."
    assert by_factor("a round lesion", "").text == "a round lesion."
    assert by_factor("a round lesion", "").parted
    assert not Prompt("a round lesion").parted


def test_other_words_are_another_name():
    names = {by_factor("a", "b").name, by_factor("a", "c").name, by_factor("b", "a").name, Prompt("a; b.").name}

    assert len(names) == 4
    assert by_factor("a", "b").name == by_factor("a", "b").name
    assert Prompt("a", id="mine").name == "mine"


def test_empty_words_are_refused():
    for given in (("  ", None, None), (None, "", " ")):
        with pytest.raises(ConfigError, match="the prompt is empty"):
            typed_prompt(*given)


@pytest.fixture
def csv(tmp_path):
    def write(text):
        path = tmp_path / "prompts.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_csv_of_whole_prompts(csv):
    prompts = read_prompts(csv("\ufeffid, prompt,seed,label\na,round,3,nv\nb,star,,\n"))

    assert prompts == [Prompt("round", id="a", seed=3, label="nv"), Prompt("star", id="b")]


def test_a_csv_of_fields_and_a_mixed_one(csv):
    prompts = read_prompts(csv("prompt,anatomy,style\n,round,red\nwhole,,\n,round,\n"))

    assert [prompt.text for prompt in prompts] == ["round; red.", "whole", "round."]
    assert [prompt.parted for prompt in prompts] == [True, False, True]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("words,id\na,b\n", "has no column 'prompt', nor 'anatomy' and 'style'.\n  columns: words, id"),
        ("prompt\n", "has no rows"),
        ("", "has no column 'prompt'"),
        ("id,prompt\na,x\nb, \n", "line 3: its prompt is empty"),
        ("id,prompt\na,x\na,y\n", "id 'a' is there twice"),
        ("id,prompt\n../a,x\n", "id '../a' becomes a name of a file"),
        ("prompt,label\nx,/etc\n", "label '/etc' becomes a name of a file"),
        ("prompt,seed\nx,1.5\n", "seed '1.5' is no whole number"),
        ("prompt,seed\n,1\nx,y\n", "2 problems\n  line 2: its prompt is empty\n  line 3: seed 'y'"),
    ],
)
def test_a_csv_that_cannot_be_used(csv, text, reason):
    with pytest.raises(DataError) as error:
        read_prompts(csv(text))

    assert reason in str(error.value)
    assert len(str(error.value).splitlines()) <= 5


def test_a_csv_that_is_not_there(csv):
    path = csv("prompt\nx\n")

    with pytest.raises(MissingError, match=r"Did you mean 'prompts\.csv'"):
        read_prompts(path.with_name("promts.csv"))


def test_a_binary_file_is_no_csv(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_bytes(b"prompt\n\xff\xfe\n")

    with pytest.raises(DataError, match="is no CSV in UTF-8"):
        read_prompts(path)
