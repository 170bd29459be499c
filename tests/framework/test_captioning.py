"""Caption tables: written whole, continued after a stop, refused when they are another's, read by experiments."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anastyle import CAPTIONERS, Caption, Captioned, Captioner, ConfigError, DataError, MissingError, Record
from anastyle.captioning import write as module
from anastyle.captioning.sheet import write_sheet
from anastyle.captioning.write import caption_set, report
from anastyle.check import check
from anastyle.cli import main
from anastyle.data.captions import partial, place
from anastyle.data.shards import write_shards
from anastyle.data.split import PreparedSet
from anastyle.errors import AnastyleError
from anastyle.experiment import read
from anastyle.plan import nodes

EXPERIMENT = """
name: tiny
data: {root: ROOT, captions: KIND}
encoder: {name: sdnet}
embedder: {name: tfidf_svd}
aligner: {name: clinicalbert_mlp}
stages: {disentangle: {steps: 3}, align: {steps: 2}}
"""


class Counting(Captioner):
    """Numbers the records it is asked about; stops, rejects or misspeaks where it is told to."""

    @dataclass
    class Config(Captioner.Config):
        word: str = "lesion"
        reject: str = ""
        mute: str = ""

    batch_size = 2
    asked: list[str] = []
    stop_at = ""

    def fit(self, records, keys):
        assert {record.split for record in records()} == {"train"}
        return {"records": len(keys)}

    def restore(self, fitted):
        self.records = fitted["records"]

    def caption(self, records):
        if self.stop_at in [record.key for record in records]:
            raise KeyboardInterrupt
        self.asked.extend(record.key for record in records)
        return [self._one(record) for record in records]

    def _one(self, record):
        if record.key == self.config.reject:
            return Captioned(None, reason="too dark")
        text = "\x00" if record.key == self.config.mute else f"{self.config.word} {record.key} of {self.records}"
        return Captioned(Caption(text, "round", "brown", record.label), {"text": "counting"}, notes=("counted",))


@pytest.fixture
def counting(monkeypatch):
    """Put the counting captioner in every captioner's place."""
    monkeypatch.setattr(Counting, "asked", [])
    monkeypatch.setattr(Counting, "stop_at", "")
    monkeypatch.setattr(CAPTIONERS, "get", lambda name: Counting)
    return Counting


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write a prepared set of eight records."""
    rng = np.random.default_rng(0)

    def record(number: int) -> Record:
        image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        return Record(
            f"r{number}", image, None, Caption(f"prepared {number}"), "nv", "", "test" if number > 5 else "train"
        )

    write_shards(map(record, range(8)), tmp_path / "set", info={})
    return tmp_path / "set"


def stored(root: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in place(root, name).read_text().splitlines()]


def test_a_table_has_a_line_for_every_record_and_the_shards_stay(counting, root):
    before = {file.name: file.read_bytes() for file in root.iterdir() if file.is_file()}

    written = caption_set(root, "counting", {"word": "spot"})

    header, *lines = stored(root, "counting")
    assert (written.captions, dict(written.notes)) == (8, {"counted": 8})
    assert header["options"] == {"word": "spot", "reject": "", "mute": ""}
    assert header["fitted"] == {"records": 8}
    assert sorted(line["key"] for line in lines) == [f"r{n}" for n in range(8)]
    assert {len(line["made_by"]) for line in lines} == {12}
    assert lines[0]["sources"] == {"text": "counting"}
    assert before == {file.name: file.read_bytes() for file in root.iterdir() if file.is_file()}
    assert not partial(place(root, "counting")).exists()


def test_a_stopped_command_continues_and_gives_the_same_table(counting, root, monkeypatch):
    caption_set(root, "counting", {}, name="whole")
    counting.asked.clear()
    monkeypatch.setattr(counting, "stop_at", "r4")
    with pytest.raises(KeyboardInterrupt):
        caption_set(root, "counting", {}, name="halves")
    assert not place(root, "halves").exists()
    growing = partial(place(root, "halves"))
    growing.write_bytes(growing.read_bytes() + b'{"key": "r4", "te')  # a torn line
    monkeypatch.setattr(counting, "stop_at", "")

    caption_set(root, "counting", {}, name="halves")

    assert sorted(counting.asked) == [f"r{n}" for n in range(8)], "nothing is asked twice"
    assert stored(root, "halves") == stored(root, "whole")


@pytest.mark.parametrize("stopped", [False, True])
def test_a_table_of_other_options_or_version_is_refused_with_the_way_out(counting, root, monkeypatch, stopped):
    if stopped:
        monkeypatch.setattr(counting, "stop_at", "r5")
        with pytest.raises(KeyboardInterrupt):
            caption_set(root, "counting", {})
        monkeypatch.setattr(counting, "stop_at", "")
    else:
        caption_set(root, "counting", {})

    with pytest.raises(DataError, match=r"word='lesion', now 'spot'(?s:.*)name=ANOTHER(?s:.*)--fresh"):
        caption_set(root, "counting", {"word": "spot"})
    monkeypatch.setattr(counting, "version", 2)
    with pytest.raises(DataError, match="version"):
        caption_set(root, "counting", {})
    caption_set(root, "counting", {"word": "spot"}, fresh=True)

    assert stored(root, "counting")[1]["text"].startswith("spot")


def test_a_finished_table_is_left_as_it_is(counting, root):
    caption_set(root, "counting", {})
    counting.asked.clear()

    assert caption_set(root, "counting", {}).captions == 8
    assert counting.asked == []


def test_rejected_records_stay_with_their_reason_and_can_be_filled_in(counting, root):
    caption_set(root, "counting", {"word": "other"}, name="other")
    written = caption_set(root, "counting", {"reject": "r2", "mute": "r3"})
    prepared = PreparedSet.open(root)

    assert dict(written.rejected) == {"too dark": 1, "control characters in it": 1}
    assert "2 records have no caption" in report(written, str(root))
    with pytest.raises(DataError, match=r"2 of 6 records have no caption(?s:.*)instead=(?s:.*)r2: too dark"):
        prepared.split("train", captions="counting")

    filled = caption_set(root, "counting", {"reject": "r2", "mute": "r3"}, instead="other")
    line = next(line for line in stored(root, "counting")[1:] if line["key"] == "r2")
    assert (filled.captions, filled.rejected.total()) == (8, 0)
    assert (line["text"], line["rejected"]) == ("other r2 of 8", "too dark")
    assert line["sources"] == {"text": "other: counting"}
    caption_set(root, "counting", {"reject": "r2", "mute": "r3"}, instead="attributes")
    texts = {c.text for c in PreparedSet.open(root).split("train", captions="counting").captions}
    assert {"prepared 2", "prepared 3", "lesion r1 of 8"} <= texts


@pytest.mark.parametrize("name", ["attributes", "class_label"])
def test_a_table_cannot_take_a_name_that_means_something_without_one(counting, root, name):
    with pytest.raises(ConfigError, match=f"name=my_{name}"):
        caption_set(root, name, {})
    assert not (root / "captions").exists()


def test_names_that_leave_the_folder_are_refused(counting, root):
    with pytest.raises(ConfigError, match="a table's name"):
        caption_set(root, "counting", {}, name="../../evil")


def test_two_processes_do_not_write_one_table(counting, root):
    from filelock import FileLock

    (root / "captions").mkdir()
    with FileLock(root / "captions" / ".counting.lock"), pytest.raises(DataError, match="another process"):
        caption_set(root, "counting", {})


def test_an_experiment_reads_the_table_it_names(counting, root):
    caption_set(root, "counting", {})
    split = PreparedSet.open(root).split("test", image_size=8, captions="counting")

    assert split.captions[0] == Caption("lesion r6 of 8", "round", "brown", "nv")
    assert split.subset([1]).captions[0].text == "lesion r7 of 8"


def test_a_table_of_other_records_or_a_damaged_one_is_refused(counting, root):
    caption_set(root, "counting", {})
    path = place(root, "counting")
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header.replace('"set": "', '"set": "x'), *lines]) + "\n")
    with pytest.raises(DataError, match="other records"):
        PreparedSet.open(root).split("test", captions="counting")
    path.write_text("\n".join([header, lines[0][:-4], *lines[1:]]) + "\n")
    with pytest.raises(DataError, match="jsonl:2: damaged"):
        PreparedSet.open(root).split("test", captions="counting")


@pytest.fixture
def experiment(root, tmp_path):
    def experiment(kind: str):
        file = tmp_path / "tiny.yaml"
        file.write_text(EXPERIMENT.replace("ROOT", str(root)).replace("KIND", kind) + f"output: {tmp_path / 'runs'}\n")
        return read(file)

    return experiment


def test_check_names_the_command_that_writes_a_missing_table(root, experiment):
    with pytest.raises(MissingError, match=rf"no such table(?s:.*)anastyle caption {root} template"):
        check(experiment("template"))
    with pytest.raises(MissingError, match=r"anastyle caption \S+ CAPTIONER name=mine"):
        check(experiment("mine"))
    with pytest.raises(MissingError, match="Did you mean 'class_label'"):
        check(experiment("class_labels"))
    with pytest.raises(ConfigError, match="captions"):
        experiment("../mine")
    check(experiment("class_label"))


def test_a_set_prepared_on_first_use_has_no_tables(tmp_path):
    file = tmp_path / "tiny.yaml"
    text = EXPERIMENT.replace("root: ROOT", "name: phantom").replace("KIND", "template")
    file.write_text(text + f"output: {tmp_path / 'runs'}\n")

    with pytest.raises(MissingError, match=r"anastyle prepare phantom OUT +anastyle caption OUT template"):
        check(read(file))


def test_the_words_of_a_table_decide_the_fingerprint_of_what_reads_them_alone(counting, root, experiment, tmp_path):
    def planned(kind: str) -> dict[str, str]:
        run = experiment(kind).runs[0]
        prepared = PreparedSet.open(root)
        said = prepared.captions_identity(run.config["data"]["captions"])
        plan = nodes(run, {"fingerprint": prepared.fingerprint}, tmp_path, captions=said)
        return {stage: node.fingerprint for stage, node in plan.items()}

    caption_set(root, "counting", {}, name="one")
    caption_set(root, "counting", {}, name="same")
    caption_set(root, "counting", {"word": "spot"}, name="two")
    one, same, two = (planned(kind) for kind in ("one", "same", "two"))

    assert one == same
    assert one["disentangle"] == two["disentangle"] == planned("attributes")["disentangle"]
    assert len({one["align"], two["align"], planned("attributes")["align"], planned("class_label")["align"]}) == 4


def test_the_command_line(counting, root, tmp_path, capsys):
    sheet = tmp_path / "sheets" / "look.png"

    assert main(["caption", str(root), "counting", "word=spot", "name=mine", f"sheet={sheet}"]) == 0
    out = capsys.readouterr().out
    assert "8 captions" in out
    assert "captions: mine" in out
    assert Image.open(sheet).size[1] > 0
    assert main(["caption", str(root), "counting", "reject=r1"]) == 7
    assert main(["caption", str(root), "counting", "again"]) == 2
    assert main(["caption", str(root), "counting", "colour=red"]) == 2
    assert main(["caption", str(tmp_path / "nowhere")]) == 3
    assert "no such folder" in capsys.readouterr().err


def test_a_sheet_shows_the_same_records_every_time(counting, root, tmp_path):
    caption_set(root, "counting", {"reject": "r1"})
    prepared, table = PreparedSet.open(root), place(root, "counting")
    for name in ("a.png", "b.png"):
        write_sheet(prepared, table, tmp_path / name, count=3)

    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert len(module.shown(table, 3)) == 3
    with pytest.raises(AnastyleError, match=r"sheet=look.png"):
        write_sheet(prepared, table, Path("look.pdf"))
