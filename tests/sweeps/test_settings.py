"""The ``sweep`` section: what it can say, and every mistake told before anything runs."""

from pathlib import Path

import pytest

from anastyle import check, needs
from anastyle.cli import main
from anastyle.errors import MissingError
from anastyle.experiment import read
from anastyle.sweeps import settings
from anastyle.sweeps.settings import read_sweep
from anastyle.sweeps.space import Choice, Range, applies, flat, grid, read_space
from sweeps.tiny import SPACE, write

LR = {"stages.diffuse.lr": {"low": 1e-4, "high": 1e-2}}
TWO = {"fd_domain": "minimize", "recall": "maximize"}


def test_a_sweep_is_read_with_its_defaults(tmp_path):
    sweep, problems = read_sweep(read(write(tmp_path)))

    assert problems == []
    assert sweep.trials == 3
    assert sweep.space == [
        Choice("backbone.lora_rank", (2, 4)),
        Range("stages.diffuse.lr", 1e-4, 1e-2, log=True),
    ]
    assert sweep.sampler.options.seed == 42, "the experiment's own, so that the same command finds the same"


def test_check_describes_the_sweep(tmp_path, capsys):
    assert main(["check", str(write(tmp_path, pruner={"name": "median"}))]) == 0

    said = capsys.readouterr().out
    assert "3 trials, minimize fd_domain, random, pruned by median" in said
    assert "backbone.lora_rank  2 | 4" in said
    assert "stages.diffuse.lr   0.0001 to 0.01, log" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trails": 3}, "sweep.trails: no such option. Did you mean 'trials'?"),
        ({"trials": 0}, "sweep.trials: write a whole number, at least 1"),
        ({"trials": None}, "sweep.trials: say how many"),
        ({"objective": "fd_domain"}, "sweep.objective: write metrics and directions"),
        ({"objective": {"fd_domian": "minimize"}}, "no such metric. Did you mean 'fd_domain'?"),
        ({"objective": {"fd_domain": "minimise"}}, "Did you mean 'minimize'?"),
        ({"objective": {"recall": "minimize"}}, "minimize, but higher is better"),
        ({"sampler": {"name": "tpa"}}, "there is no 'tpa'. Did you mean 'tpe'?"),
        ({"sampler": {"name": "tpe", "n_startup": 3}}, "no such option. Did you mean 'n_startup_trials'?"),
        ({"sampler": {"name": "qmc", "qmc_type": "sobel"}}, "expected one of ['sobol', 'halton']"),
        ({"sampler": {"name": "cmaes"}}, "'cmaes' takes ranges, and backbone.lora_rank is a choice"),
        ({"pruner": {"name": "medain"}}, "Did you mean 'median'?"),
        ({"pruner": {"name": "median", "term": "denoise"}}, "no such loss. Did you mean 'denoising'?"),
        ({"pruner": {"name": "percentile", "percentile": 300}}, "must lie between 0 and 100"),
        ({"pruner": "median", "objective": TWO}, "sweep.pruner: compares trials by one number, and there are 2"),
        ({"pruner": "median", "space": {"data.seed": {"choice": [1, 2]}}}, "data.seed is searched"),
        ({"space": {}}, "sweep.space: name at least one option"),
        ({"space": {"backbone.lora_rnk": {"choice": [2]}}}, "no such option. Did you mean 'lora_rank'?"),
        ({"space": {"bakbone.lora_rank": {"choice": [2]}}}, "no such section. Did you mean 'backbone'?"),
        ({"space": {"backbone.lora_rank": {"chioce": [2]}}}, "no such option. Did you mean 'choice'?"),
        ({"space": {"backbone.lora_rank": {"choice": []}}}, "write a list of values"),
        ({"space": {"backbone.lora_rank": {"choice": [2, 2]}}}, "has a value twice"),
        ({"space": {"backbone.lora_rank": {"choice": [[2]]}}}, "takes numbers, words, true, false and null"),
        ({"space": {"backbone.lora_rank": [2, 4]}}, "write {choice: [a, b]}"),
        ({"space": {"backbone.lora_rank": {"low": 8, "high": 2}}}, "low=8 must be below high=2"),
        ({"space": {"stages.diffuse.batch_size": {"low": 0, "high": 2}}}, "batch_size=0: must be at least 1"),
        ({"space": {"stages.diffuse.lr": {"low": 0, "high": 1, "log": True}}}, "low=0 must be above 0"),
        ({"space": {"stages.diffuse.lr": {"low": 1e-4}}}, "high: write a number. Got None"),
        ({"space": {"stages.diffuse.lr": {"low": 1e-4, "high": 1, "log": True, "step": 0.1}}}, "log: takes no step"),
        ({"space": {"stages.diffuse.optimizer": {"choice": ["adam", "sgd"]}}}, "expected one of ['adamw', 'adam']"),
        ({"sampler": "grid"}, "sweep.space.stages.diffuse.lr: a grid needs"),
        ({"sampler": "grid", "space": {"backbone.lora_rank": {"choice": [2, 4]}}}, "the grid has 2 points"),
        ({"storage": "mysql://host/database"}, "postgresql://USER@HOST/DATABASE for many machines"),
        ({"storage": 7}, "write null, or a database's address"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(changes, said, tmp_path, capsys):
    file = write(tmp_path, **changes)

    assert main(["sweep", str(file)]) == 2

    told = capsys.readouterr().err
    assert said in told
    assert len(told.splitlines()) <= 5
    assert not (tmp_path / "runs").exists()


def test_all_mistakes_are_told_at_once(tmp_path, capsys):
    file = write(tmp_path, trials=0, objective={"fd_domian": "minimize"}, sampler="tpa")

    assert main(["check", str(file)]) == 2
    assert "3 problems" in capsys.readouterr().err


def test_a_password_is_shown_nowhere(tmp_path, capsys):
    address = "mysql://me:secret@host/database?password=secret"
    file = write(tmp_path, storage=address)

    main(["sweep", str(file)])
    main(["run", str(file), "--print-config"])

    said = capsys.readouterr()
    assert "mysql://host/database" in said.out
    assert "secret" not in said.out + said.err
    assert "secret" not in str(read(file).document())


def test_several_variants_cannot_be_swept_at_once(tmp_path, capsys):
    twin = "{encoder: null, aligner: {name: token_reader}, fuser: {name: text_tokens, merge: 0.5}}"

    code = main(["sweep", str(write(tmp_path)), "only=[no_disentanglement,twin]", f"variants.twin={twin}"])

    assert code == 2
    assert "searches one variant, and there are 2" in capsys.readouterr().err


def test_a_sweep_without_a_measurement_is_refused(tmp_path, capsys):
    assert main(["sweep", str(write(tmp_path)), "stages.evaluate=null"]) == 2
    assert "stages.evaluate is off" in capsys.readouterr().err


def test_run_and_sweep_send_one_to_the_other(tmp_path, capsys):
    file = str(write(tmp_path))

    assert main(["run", file]) == 2
    assert "anastyle sweep" in capsys.readouterr().err
    assert main(["sweep", file, "sweep=null"]) == 2
    assert "has no section 'sweep'" in capsys.readouterr().err


def test_parts_that_do_not_fit_are_told(tmp_path, capsys):
    file = write(tmp_path, space={"fuser.name": {"choice": ["text_tokens", "hffm"]}})

    assert main(["check", str(file)]) == 2
    assert "sweep.space.fuser.name: hffm: fuser: 'hffm' needs" in capsys.readouterr().err


def test_a_missing_driver_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(settings, "find_spec", lambda name: None)

    assert main(["check", str(write(tmp_path, storage="postgresql://host/database"))]) == 2
    assert "pip install 'anastyle[sweep]'" in capsys.readouterr().err


def test_what_the_experiment_misses_is_told_first(tmp_path, monkeypatch):
    monkeypatch.setattr(needs, "LEAST_FREE", 1 << 62)

    with pytest.raises(MissingError, match="Make room"):
        check.check(read(write(tmp_path)))


def test_options_can_be_typed_over_the_file(tmp_path):
    words = ["sweep.trials=9", "sweep.space.backbone.lora_rank.choice=[1,2,3]", "sweep.space.fuser={}"]

    sweep, problems = read_sweep(read(write(tmp_path), words[:2]))

    assert problems == []
    assert sweep.trials == 9
    assert sweep.space[0] == Choice("backbone.lora_rank", (1, 2, 3))
    assert read_sweep(read(write(tmp_path), words))[1], "an option needs values"


def test_an_option_can_be_dropped_from_the_command_line():
    assert list(flat({**SPACE, "backbone": {"lora_rank": None}})) == ["stages.diffuse.lr"]


@pytest.mark.parametrize(
    ("spec", "kind", "expected"),
    [
        ({"low": 1, "high": 4}, int, Range("a.b", 1, 4, whole=True)),
        ({"low": 0, "high": 1}, float, Range("a.b", 0.0, 1.0)),
        ({"low": 0, "high": 1.5}, int, Range("a.b", 0.0, 1.5)),
        ({"low": 2, "high": 8, "step": 2}, int, Range("a.b", 2, 8, step=2, whole=True)),
    ],
)
def test_a_range_is_of_whole_numbers_where_the_option_is(spec, kind, expected):
    assert read_space({"a.b": spec}, {"a.b": kind}) == ([expected], [])


def test_a_grid_holds_every_combination_once_and_leaves_out_what_does_not_apply():
    space = [
        Choice("fuser.name", ("hffm", "concat")),
        Range("fuser.tokens", 1, 2, whole=True),
        Choice("fuser.hidden_dim", (8, 16)),
    ]

    points = grid(space, 0)

    assert len({str(sorted(point.items())) for point in points}) == len(points)
    for point in points:
        assert all(applies(path, point) for path in point)
    assert grid(space, 0) == points
    assert grid(space, 1) != points


def test_the_shipped_sweep_can_run():
    file = Path(__file__).parents[2] / "experiments" / "sweep.yaml"

    assert main(["check", str(file)]) == 0
