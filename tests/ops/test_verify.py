"""``anastyle verify`` finds every byte that is not as it was written, and says which."""

import json
from pathlib import Path

import pytest
from PIL import Image

from anastyle.checkpoint import save_checkpoint, write_folder
from anastyle.cli import main
from anastyle.data.cache import cached
from anastyle.data.shards import write_shards
from anastyle.jsonlines import read_json, write_json
from anastyle.records import Caption
from anastyle.sources import Record
from anastyle.tracking import Study


@pytest.fixture
def output(tmp_path, monkeypatch) -> Path:
    """An output folder with a store, a cache, a prepared set, a training under way, and a finished run of them."""
    import torch

    monkeypatch.setenv("ANASTYLE_TRACKING", "off")
    records = (Record(key=key, image=Image.new("RGB", (8, 8)), mask=None, caption=Caption(key), split="train")
               for key in ("a", "b"))  # fmt: skip
    manifest = write_shards(records, tmp_path / "data" / "phantom-1", info={})
    for stage in ("align", "diffuse"):
        with write_folder(tmp_path / "store" / stage / f"{stage}1") as folder:
            (folder / "weights.safetensors").write_bytes(b"0" * 100)
    save_checkpoint(tmp_path / "store" / "diffuse" / "diffuse2.work", 5, {"a": {"a": torch.ones(2)}}, {}, keep=2)
    cached(tmp_path / "cache", {"what": "latents"}, lambda: {"a": torch.ones(2)})
    with Study(tmp_path, "study", {}) as study, study.run("full", 42, {}) as tracker:
        tracker.dataset("phantom", manifest.fingerprint, str(tmp_path / "data" / "phantom-1"), {"train": 2})
    write_json(tracker.folder / "status.json", {"status": "finished", "stages": {"align": "align1"}})
    return tmp_path


def verified(capsys, place, code):
    assert main(["verify", str(place)]) == code
    return capsys.readouterr().out


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_what_is_whole_is_counted(output, capsys):
    whole = verified(capsys, output, 0)
    run = verified(capsys, output / "study" / "full" / "seed-42", 0)

    assert whole == "hashed again: sealed folders: 3, prepared sets: 1, cached encodings: 1; no problems\n"
    assert run == "hashed again: sealed folders: 1, prepared sets: 1; no problems\n"
    assert verified(capsys, output / "study", 0) == run
    assert "sealed folders: 1; no" in verified(capsys, output / "store" / "align" / "align1", 0)
    assert "prepared sets: 1; no" in verified(capsys, output / "data" / "phantom-1", 0)


@pytest.mark.parametrize(
    ("pattern", "damage", "words"),
    [
        ("store/align/align1/weights.safetensors", flip, "contents changed"),
        ("store/align/align1/weights.safetensors", Path.unlink, "missing"),
        ("store/align/align1/COMPLETE.json", Path.unlink, "COMPLETE.json is missing or broken"),
        ("store/diffuse/diffuse2.work/checkpoint-5/state.json", flip, "contents changed"),
        ("data/*/train-000000.tar", flip, "contents changed"),
        ("data/*/train-000000.tar", Path.unlink, "missing"),
        ("data/*/train-000000.tar", lambda file: file.write_bytes(b"0"), "1 bytes instead of"),
        ("data/*/manifest.json", lambda file: file.write_text("{}"), "not a manifest"),
        ("cache/*.safetensors", flip, "contents changed"),
        ("cache/*.safetensors", Path.unlink, "missing"),
    ],
)
def test_what_was_damaged_is_named(output, capsys, pattern, damage, words):
    (file,) = output.glob(pattern)
    damage(file)

    said = verified(capsys, output, 7).splitlines()

    assert words in said[0]
    assert str(file.parent) in said[0]
    assert said[-2].endswith("; 1 problem")
    assert "Delete what is damaged" in said[-1]


def test_a_run_is_not_taken_for_one_of_other_data(output, capsys):
    manifest = output / "data" / "phantom-1" / "manifest.json"
    other = read_json(manifest)
    other["fingerprint"] = "0" * 64
    write_json(manifest, other)

    said = verified(capsys, output / "study", 7)

    assert "its fingerprint is not that of its shards" in said
    assert "holds another set than the run read" in said


def test_a_stage_that_is_gone_and_a_run_that_is_not_finished_are_named(output, capsys):
    run = output / "study" / "full" / "seed-42"
    write_json(run / "status.json", {"stages": {"align": "gone"}})
    assert "align/gone: missing" in verified(capsys, run, 7)

    (run / "status.json").write_text(json.dumps({"status": "running"}))
    assert "not finished" in verified(capsys, run, 0)


def test_where_there_is_nothing_to_verify_is_said(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "nowhere")]) == 3
    assert main(["verify", str(tmp_path)]) == 2
    assert "holds nothing to verify" in capsys.readouterr().err
