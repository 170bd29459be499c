"""Nothing is ever run that lies in data, settings, weights, checkpoints or adapters: canaries that must not sing."""

import io
import json
import os
import shutil
import tarfile
import time
from pathlib import Path

import pytest
import torch
from canary import Canary
from PIL import Image

from anastyle.checkpoint import newest_checkpoint, save_checkpoint, verify, write_folder
from anastyle.cli import main
from anastyle.config import load_yaml
from anastyle.data.shards import MOST_MEMBERS, scan, write_shards
from anastyle.data.split import PreparedSet
from anastyle.errors import AnastyleError, ConfigError, DataError, MissingError
from anastyle.files import sha256_of
from anastyle.jsonlines import read_json, write_json
from anastyle.painting.finished import FinishedRun
from anastyle.records import Caption
from anastyle.sources import Record
from anastyle.tracking import Study
from anastyle.weights import Checkpoint, find

SMOKE = str(Path(__file__).parents[2] / "experiments" / "smoke.yaml")
VAE = {"_class_name": "AutoencoderKL", "block_out_channels": [8, 8], "norm_num_groups": 4, "latent_channels": 4,
       "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}  # fmt: skip


@pytest.fixture
def canary(tmp_path):
    canary = Canary(tmp_path / "sang")
    yield canary
    assert not canary.sang


def refusal(capsys, *words, code):
    """Run a verb that must be refused; return what it says, which is short."""
    assert main([str(word) for word in words]) == code
    said = capsys.readouterr().err
    assert len(said.splitlines()) <= 5
    assert "Traceback" not in said
    return said


def test_a_canary_sings_when_it_is_unpickled(tmp_path):
    import pickle

    canary = Canary(tmp_path / "sang")
    pickle.loads(canary.pickled())

    assert canary.sang, "or none of these tests could fail"


# Weights


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "model.pt", "vae/diffusion_pytorch_model.bin"])
def test_pickled_weights_are_refused_by_name(tmp_path, canary, capsys, name):
    folder = tmp_path / "weights"
    (folder / name).parent.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(VAE))
    (folder / name).write_bytes(canary.torched())

    said = refusal(capsys, "run", SMOKE, f"autoencoder.path={folder}", f"output={tmp_path / 'runs'}", code=3)

    assert "autoencoder.path" in said
    assert "diffusion_pytorch_model.safetensors" in said
    with pytest.raises(MissingError, match=f"{name} is a pickle, which can run code and is not read"):
        find(Checkpoint("autoencoder.path", str(folder), ("diffusion_pytorch_model.safetensors",)))


def test_a_pickle_that_calls_itself_safetensors_is_refused(tmp_path, canary):
    from anastyle_plugins.autoencoders.kl import KL

    (tmp_path / "config.json").write_text(json.dumps(VAE))
    for content in (canary.pickled(), canary.torched()):
        (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(content)
        with pytest.raises((AnastyleError, OSError, ValueError)):
            KL(KL.Config(path=str(tmp_path)))


def test_a_pickled_adapter_is_refused(tmp_path, canary):
    from peft import LoraConfig

    from anastyle_plugins.exports.adapter import load_peft

    LoraConfig(target_modules=["0"]).save_pretrained(tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(canary.torched())

    with pytest.raises(DataError, match=r"adapter_model\.safetensors"):
        load_peft(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path)


def test_code_beside_the_weights_is_not_run(tmp_path, canary):
    from anastyle_plugins.embedders.bert import load

    beside = {"auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.EvilConfig"}, "model_type": "evil"}
    (tmp_path / "config.json").write_text(json.dumps(beside))
    (tmp_path / "evil.py").write_text(f"import os\nos.system({canary.command!r})\n")
    (tmp_path / "model.safetensors").write_bytes(b"")

    with pytest.raises((OSError, ValueError)):
        load(tmp_path)


@pytest.mark.parametrize("revision", [None, "no-such-branch"])
def test_without_a_network_the_missing_files_and_the_way_out_are_named(tmp_path, monkeypatch, revision):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("ANASTYLE_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    began = time.monotonic()

    with pytest.raises(MissingError) as caught:
        find(Checkpoint("backbone.path", "lab/model", ("config.json", "model.safetensors"), revision=revision))

    said = str(caught.value)
    assert "config.json, model.safetensors" in said
    assert "anastyle fetch" in said
    assert revision is None or revision in said
    assert len(said.splitlines()) <= 5
    assert time.monotonic() - began < 10


# Checkpoints and finished runs


def test_a_pickle_among_sealed_files_is_never_read(tmp_path, canary):
    groups = {"weights": {"a": torch.ones(2)}}
    good = save_checkpoint(tmp_path / "work", 1, groups, {}, keep=3)
    bad = save_checkpoint(tmp_path / "work", 2, groups, {}, keep=3)
    for name in ("weights.pt", "optimizer.bin", "random_states_0.pkl"):
        (bad / name).write_bytes(canary.torched())
    (bad / "weights.safetensors").write_bytes(canary.torched())

    said: list[str] = []
    assert newest_checkpoint(tmp_path / "work", said.append) == good
    assert "checkpoint-2, which is damaged" in said[0]


def test_a_pickle_under_a_forged_seal_is_refused(tmp_path, canary):
    from anastyle.checkpoint import load_tensors

    with write_folder(tmp_path / "checkpoint-1") as folder:
        (folder / "weights.safetensors").write_bytes(canary.torched())

    assert verify(tmp_path / "checkpoint-1") == []
    with pytest.raises(DataError, match="not a whole safetensors file"):
        load_tensors(tmp_path / "checkpoint-1" / "weights.safetensors")


def test_a_finished_run_cannot_name_a_stage_outside_its_store(tmp_path, canary, capsys):
    run = tmp_path / "runs" / "study" / "full" / "seed-42"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("a: !!python/object/apply:os.system ['" + canary.command + "']")
    write_json(run / "status.json", {"status": "finished", "stages": {"../../../evil": "x"}})

    assert "names a stage" in refusal(capsys, "sample", run, "--prompt", "x", code=2)
    write_json(run / "status.json", {"status": "finished", "stages": {"diffuse": "../../../../evil"}})
    assert "tags are not read here" in refusal(capsys, "sample", run, "--prompt", "x", code=2)
    (run / "config.yaml").write_text("a: 1")
    with pytest.raises(AnastyleError):
        FinishedRun.open(run).stored("diffuse")


# Settings


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("fuser: !!python/object/apply:os.system ['touch {file}']", "tags are not read here"),
        ("fuser: !!python/object/new:type [x, [], {{}}]", "tags are not read here"),
        ("fuser: {{_target_: os.system, name: hffm}}", "class paths are not read here"),
        ("fuser: {{name: os.system}}", "os.system"),
        ("fuser: {{name: ../../../../../tmp/evil}}", "evil"),
        ("description: ${{oc.env:HOME}}", "interpolations are not read here"),
        ("description: ${{oc.decode:'1'}}", "interpolations are not read here"),
        ("name: ../../elsewhere", "name"),
        ("variants: {{../../elsewhere: {{fuser: null}}}}", "elsewhere"),
    ],
)
def test_settings_name_no_code_no_secret_and_no_other_place(tmp_path, canary, capsys, text, reason):
    file = tmp_path / "experiment.yaml"
    file.write_text(f"base: {SMOKE}\n" + text.format(file=canary.file))

    assert reason in refusal(capsys, "run", file, f"output={tmp_path / 'runs'}", code=2)
    assert not (tmp_path / "runs").exists()


def test_aliases_cannot_blow_a_file_up(tmp_path):
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    bomb = "\n".join(["a0: &a0 [x, x]", *levels])
    began = time.monotonic()

    for number, text in enumerate([bomb, "a: &a [*a]"]):
        (tmp_path / f"{number}.yaml").write_text(text)
        with pytest.raises(ConfigError):
            load_yaml(tmp_path / f"{number}.yaml")

    assert time.monotonic() - began < 10


# Data


def member(tar, name, content=b"{}", **changes):
    info = tarfile.TarInfo(name)
    info.size = len(content) if not changes else 0
    for key, value in changes.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content) if not changes else None)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("../../escaped.json", {}),
        ("/tmp/escaped.json", {}),
        ("a/../../escaped.json", {}),
        ("a.json", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("a.json", {"type": tarfile.LNKTYPE, "linkname": "../../etc/passwd"}),
        ("a.json", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
        ("a.json", {"type": tarfile.FIFOTYPE}),
        ("a.json", {"type": tarfile.DIRTYPE}),
        ("x" * 255 + ".json", {}),
        ("x" * 4000 + ".json", {}),
        ("a.pyd", {}),
        ("a.pkl", {}),
        ("a.pickle", {}),
        ("a.pth", {}),
        ("a.image.npy", {}),
        ("a\0b.json", {}),
    ],
)
def test_a_shard_holds_nothing_but_its_records(tmp_path, canary, name, changes):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        member(tar, name, canary.pickled(), **changes)
    before = set(tmp_path.rglob("*"))

    with pytest.raises(DataError, match=r"does not belong|incomplete") as caught:
        scan(tmp_path / "x.tar")

    assert len(str(caught.value)) < 5000
    assert set(tmp_path.rglob("*")) == before


def test_a_shard_of_a_million_members_is_given_up_early(tmp_path):
    header = tarfile.TarInfo("a.json").tobuf()
    with (tmp_path / "x.tar").open("wb") as file:
        file.write(header * (MOST_MEMBERS + 1))
        file.truncate(512 * 1_000_000)  # sparse: no disk holds it
    began = time.monotonic()

    with pytest.raises(DataError, match="more than the 3000 members of a shard"):
        scan(tmp_path / "x.tar")

    assert time.monotonic() - began < 20


def test_a_shard_that_leads_back_to_its_beginning_does_not_hang(tmp_path):
    forward, back = tarfile.TarInfo("a.image.png").tobuf() * 2, bytearray(tarfile.TarInfo("a.json").tobuf())
    back[124:136] = (-1024).to_bytes(12, "big", signed=True)  # a size: the next member lies before this one
    back[148:156] = b" " * 8
    back[148:156] = f"{sum(back):06o}\0 ".encode()
    (tmp_path / "x.tar").write_bytes(forward + bytes(back) + bytes(10240))

    with pytest.raises(DataError, match="more than the 3000 members"):
        scan(tmp_path / "x.tar")


def test_a_forged_set_gives_pixels_or_an_error_and_runs_nothing(tmp_path, canary):
    image, folder = Image.new("RGB", (8, 8), "red"), tmp_path / "set"
    records = (Record(key=key, image=image, mask=None, caption=Caption(key), split="train") for key in ("a", "b"))
    write_shards(records, folder, info={})
    shard, index = next(folder.glob("*.tar")), next(folder.glob("*.index.json"))
    content = shard.read_bytes()
    at = content.index(b"\x89PNG")
    shard.write_bytes(content[:at] + canary.pickled().ljust(80, b"\0") + content[at + 80 :])
    manifest, digest = read_json(folder / "manifest.json"), sha256_of(shard)
    manifest["shards"][0]["sha256"] = digest
    write_json(folder / "manifest.json", manifest)
    write_json(index, {**read_json(index), "sha256": digest})

    with pytest.raises(DataError):
        PreparedSet.open(folder).split("train", image_size=8).pixels([0, 1])


# Tracking


def test_pictures_and_files_stay_where_they_belong(tmp_path, monkeypatch):
    monkeypatch.setenv("ANASTYLE_TRACKING", "off")
    with Study(tmp_path / "runs", "study", {}) as study, study.run("full", 42, {}) as tracker:
        for key in ("../../../escaped", "/abs", "..", "a/../../b", "a/./b"):
            tracker.image(key, Image.new("RGB", (4, 4)))

    outside = {file for file in tmp_path.rglob("*.png") if not file.is_relative_to(tracker.folder / "images")}
    assert not outside
    assert len(list((tracker.folder / "images").rglob("*.png"))) >= 3


def test_a_foreign_run_folder_cannot_have_other_files_sent(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "secret.txt").write_text("hunter2")
    with Study(tmp_path / "runs", "study", {}, enabled=False):
        pass
    folder = tmp_path / "runs" / "study"
    outbox = read_json(folder / "outbox.json")
    outbox["files"] += ["../../secret.txt", str(tmp_path / "secret.txt"), "/etc/passwd"]
    outbox["images"] = {"x@0": {"key": "x", "step": 0, "file": "../../secret.txt", "sha256": "x"}}
    write_json(folder / "outbox.json", outbox)
    os.symlink(tmp_path / "secret.txt", folder / "link.txt")
    write_json(folder / "outbox.json", {**outbox, "files": [*outbox["files"], "link.txt"]})

    assert main(["sync", str(tmp_path / "runs")]) == 0

    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["study.yaml"]


def test_a_run_folder_is_verified_without_leaving_its_store(tmp_path, capsys):
    run = tmp_path / "runs" / "study" / "full" / "seed-42"
    run.mkdir(parents=True)
    shutil.copy(SMOKE, run / "config.yaml")
    with write_folder(tmp_path / "elsewhere"):
        pass
    write_json(run / "status.json", {"stages": {"../../../elsewhere": "..", "diffuse": "../../../../elsewhere"}})

    assert main(["verify", str(run)]) == 7
    assert capsys.readouterr().out.count("missing") == 2
