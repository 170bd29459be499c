"""The command line: verbs, words, exit codes, and errors in at most five lines."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from anastyle import __version__, check, needs
from anastyle.cli import main
from anastyle.errors import MissingError, NumericalError
from anastyle.experiment import read

GOOD = """
name: tiny
data: {name: phantom, train: 8, test: 4}
encoder: {name: sdnet}
aligner: {name: clinicalbert_mlp}
fuser: {name: hffm}
stages: {disentangle: {steps: 3}, align: {epochs: 2}}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(GOOD + f"output: {tmp_path / 'runs'}\n")
    return path


@pytest.fixture
def fake(monkeypatch):
    """Put a module with one function in the place of a heavy one; returns the calls."""
    calls: list[tuple] = []

    def put(module: str, function: str, answer):
        def record(*args, **kwargs):
            calls.append((args, kwargs))
            if isinstance(answer, BaseException):
                raise answer
            return answer

        stand_in = ModuleType(module)
        setattr(stand_in, function, record)
        monkeypatch.setitem(sys.modules, module, stand_in)
        return calls

    return put


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])

    assert capsys.readouterr().out == f"anastyle {__version__}\n"


def test_list_names_every_kind_with_its_plugins(capsys):
    assert main(["list"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert {"encoders", "fusers", "datasets", "features"} <= set(lines)
    assert any(line.startswith("  hffm ") for line in lines)


@pytest.mark.parametrize("kind", ["fuser", "fusers"])
def test_list_of_one_kind(kind, capsys):
    assert main(["list", kind]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "fusers"
    assert not any("sdnet" in line for line in lines)


def test_list_of_an_unknown_kind(capsys):
    assert main(["list", "fuserz"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no kind 'fuserz'. Did you mean 'fuser")


def test_describe_shows_kind_module_options_types_and_defaults(capsys):
    assert main(["describe", "phantom"]) == 0

    text = capsys.readouterr().out
    assert text.startswith("dataset phantom  (anastyle_plugins.datasets.phantom.Phantom)")
    option = next(line.split() for line in text.splitlines() if line.strip().startswith("train "))
    assert option == ["train", "int", "=", "4096"]


def test_describe_says_what_a_fuser_needs_and_an_aligner_gives(capsys):
    main(["describe", "hffm"])
    assert "needs factors" in capsys.readouterr().out

    main(["describe", "token_reader"])
    assert "gives tokens" in capsys.readouterr().out


def test_describe_of_an_unknown_name(capsys):
    assert main(["describe", "hfmf"]) == 2
    assert "there is no plugin 'hfmf'. Did you mean 'hffm'?" in capsys.readouterr().err


def test_check_says_ok_and_the_grid(file, capsys):
    assert main(["check", str(file), "seeds=[1,2]"]) == 0

    text = capsys.readouterr().out
    assert text.startswith(f"{file}: ok\n")
    assert "1 variant x 2 seeds (1, 2) = 2 runs" in text
    assert "sdnet > clinicalbert_mlp > hffm" in text
    assert "disentangle 3 steps, align 2 epochs" in text


def test_check_names_only_stages_that_run(file, capsys):
    assert main(["check", str(file), "aligner={name: token_reader}", "fuser={name: text_tokens}"]) == 0

    assert "disentangle" not in capsys.readouterr().out, "nothing learns from an encoder"
    assert main(["check", str(file), "aligner=null", "fuser=null", "stages.align=null"]) == 0
    assert "disentangle 3 steps" in capsys.readouterr().out, "an encoder may be trained alone"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["fuser.name=text_tokens"], "fuser: 'text_tokens' needs tokens, and aligner 'clinicalbert_mlp' gives factors"),
        (["encoder=null"], "aligner: 'clinicalbert_mlp' learns from an encoder's factors"),
        (["stages.evaluate={}"], "stages.evaluate: there is nothing to measure"),
        (["stages.autoencode={}"], "autoencoder: stages.autoencode needs one"),
        (["stages.diffuse={}"], "stages.diffuse needs one"),
        (["fuser.tokns=3"], "fuser.tokns: no such option. Did you mean 'tokens'?"),
    ],
)
def test_check_refuses_what_does_not_fit(file, capsys, words, reason):
    assert main(["check", str(file), *words]) == 2

    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}: ")
    assert reason in error
    assert len(error.splitlines()) <= 5


def test_a_trained_aligner_needs_its_stages(file):
    experiment = read(file, ["stages.align=null"])
    experiment.variants["default"]["stages"]["diffuse"] = {}
    named = {"autoencoder": "kl", "embedder": "tfidf_svd", "backbone": "compact_dit"}
    experiment.variants["default"].update({part: {"name": name} for part, name in named.items()})

    problems = check.wiring_problems(experiment)

    assert len(problems) == 1
    assert problems[0].startswith("stages.align: is off, but aligner 'clinicalbert_mlp' learns there")


def test_check_names_missing_data_and_weights_at_once(file, tmp_path, capsys):
    words = [f"data.root={tmp_path / 'nothing'}", f"autoencoder={{name: kl, path: {tmp_path / 'no_weights'}}}"]

    assert main(["check", str(file), *words]) == 3

    error = capsys.readouterr().err
    assert "2 problems" in error
    assert "no manifest.json" in error
    assert f"autoencoder.path={tmp_path / 'no_weights'}: there is no such file or folder" in error


def test_check_accepts_a_prepared_folder(file, tmp_path):
    (tmp_path / "manifest.json").write_text("{}")

    assert main(["check", str(file), f"data.root={tmp_path}"]) == 0


def test_check_refuses_a_full_disk(file, capsys, monkeypatch):
    monkeypatch.setattr(needs, "LEAST_FREE", 1 << 62)

    assert main(["check", str(file)]) == 3
    assert "Make room" in capsys.readouterr().err


def test_check_refuses_an_output_that_is_a_file(file, capsys):
    assert main(["check", str(file), f"output={file}"]) == 3
    assert "cannot be written to" in capsys.readouterr().err


def test_run_hands_over_the_experiment(file, fake):
    calls = fake("anastyle.run", "run_experiment", 7)

    assert main(["run", str(file), "--fresh", "seeds=[5]"]) == 7

    (experiment,), options = calls[0]
    assert experiment.seeds == [5]
    assert options == {"fresh": True, "dry_run": False}


def test_run_checks_before_it_starts(file, fake, capsys):
    calls = fake("anastyle.run", "run_experiment", 0)

    assert main(["run", str(file), "encoder=null"]) == 2
    assert main(["run", str(file), "--check"]) == 0
    assert main(["run", str(file), "--print-config"]) == 0
    assert calls == []
    assert "image_size: 64" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"), [(NumericalError("nan"), 4), (MissingError("gone"), 3), (KeyboardInterrupt(), 130)]
)
def test_exit_codes(file, fake, error, code):
    fake("anastyle.run", "run_experiment", error)

    assert main(["run", str(file)]) == code


def test_errors_are_short_and_come_from_the_first_rank_only(file, fake, capsys, monkeypatch):
    fake("anastyle.run", "run_experiment", NumericalError("\n".join("abcdefgh")))

    main(["run", str(file)])
    assert capsys.readouterr().err.splitlines() == ["error: a", "b", "c", "d", "e"]

    monkeypatch.setenv("RANK", "1")
    main(["run", str(file)])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [["--debug", "run"], ["run", "--debug"]])
def test_debug_shows_the_traceback(file, fake, capsys, words):
    fake("anastyle.run", "run_experiment", NumericalError("nan"))

    assert main([*words, str(file)]) == 4
    assert "Traceback" in capsys.readouterr().err


def test_a_fault_of_the_program_is_not_hidden(file, fake):
    fake("anastyle.run", "run_experiment", ZeroDivisionError("bug"))

    with pytest.raises(ZeroDivisionError):
        main(["run", str(file)])


def test_unknown_option_suggests_the_closest(file, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["run", str(file), "--fersh"])

    assert "--fersh: no such option. Did you mean '--fresh'?" in capsys.readouterr().err


def test_prepare_takes_name_source_out_and_options(fake, capsys):
    calls = fake("anastyle.data.prepare", "prepare", None)

    assert main(["prepare", "folder", "photos", "data/photos", "test_share=0.3"]) == 0
    assert main(["prepare", "phantom", "train=512", "data/phantom"]) == 0

    assert calls[0][0] == ("folder", {"test_share": 0.3, "source": "photos"}, Path("data/photos"))
    assert calls[1][0] == ("phantom", {"train": 512}, Path("data/phantom"))
    assert "data/phantom: ready" in capsys.readouterr().out


@pytest.mark.parametrize("places", [[], ["a", "b", "c"]])
def test_prepare_refuses_too_few_and_too_many_places(places, fake, capsys):
    fake("anastyle.data.prepare", "prepare", None)

    assert main(["prepare", "folder", *places]) == 2
    assert "prepare takes NAME [SOURCE] OUT" in capsys.readouterr().err


def test_evaluate_hands_over_folders_and_what_is_wished(fake, capsys):
    calls = fake("anastyle.evaluation.folders", "evaluate_folders", 0)

    assert main(["evaluate", "real", "fake", "output=here", "features=inception", "feature.path=w.safetensors"]) == 0
    real, generated, wish = calls[0][0]
    assert (real, generated, wish.choices.output) == (Path("real"), Path("fake"), Path("here"))
    assert (wish.choices.features, wish.options) == (["inception"], {"inception": {"path": "w.safetensors"}})
    assert main(["evaluate", "real", "fake", "outptu=here"]) == 2
    assert "Did you mean 'output'?" in capsys.readouterr().err


def test_params_prints_the_report(file, fake, capsys):
    fake("anastyle.accounting.params", "report", "a table")

    assert main(["params", str(file)]) == 0
    assert capsys.readouterr().out == "a table\n"


def test_options_carry_the_notes_of_their_class():
    from anastyle.options import option_notes
    from anastyle.settings import DataSettings

    assert option_notes(DataSettings)["image_size"] == "Side in pixels that training resizes to."
