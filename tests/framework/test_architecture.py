"""Rules worth keeping: who imports whom, what wakes when, what may be called what."""

import ast
import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "framework").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
LAUNCH = sorted((ROOT / "launch").glob("*.py"))


def imported(file: Path) -> set[str]:
    """Return the modules a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_there_is_something_to_look_at():
    assert len(CORE) > 10
    assert len(PLUGINS) > 10
    assert LAUNCH


@pytest.mark.parametrize("file", CORE, ids=lambda file: file.stem)
def test_the_core_imports_no_plugin(file):
    assert not {name for name in imported(file) if name.split(".")[0] == "anastyle_plugins"}


@pytest.mark.parametrize("file", [*CORE, *PLUGINS], ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_nothing_needs_torchvision_or_timm(file):
    assert not {name.split(".")[0] for name in imported(file)} & {"torchvision", "timm"}


@pytest.mark.parametrize("file", LAUNCH, ids=lambda file: file.stem)
def test_no_file_in_launch_shadows_a_library(file):
    assert file.stem not in sys.stdlib_module_names
    assert file.stem not in packages_distributions()


@pytest.mark.parametrize("file", [*CORE, *PLUGINS, *LAUNCH], ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_file_opens_with_what_it_is(file):
    assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "script",
    [
        "import anastyle.cli",
        "import anastyle",
        "from anastyle.cli import main; main(['list'])",
        "from anastyle.cli import main; main(['list', 'fuser'])",
        "from anastyle.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from anastyle.cli import main\ntry: main(['run', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_nothing_heavy_wakes_without_need(script):
    heavy = "{'torch', 'omegaconf', 'numpy', 'diffusers', 'transformers', 'mlflow', 'optuna'}"
    program = f"{script}\nimport sys\nawake = {heavy} & set(sys.modules)\nassert not awake, awake"
    path = os.pathsep.join(str(ROOT / root) for root in ("framework", "plugins"))

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_launch_configs_are_what_the_launcher_reads():
    from accelerate.commands.config.config_args import load_config_from_file

    shipped = [file for file in sorted((ROOT / "launch").glob("*.yaml")) if file.stem != "kubernetes"]
    files = {file.stem: load_config_from_file(str(file)) for file in shipped}

    assert {"single", "ddp", "zero2", "zero3", "cpu"} <= set(files)
    assert files["cpu"].use_cpu
    assert files["zero3"].deepspeed_config["zero_stage"] == 3
    settings = ("gradient_accumulation_steps", "gradient_clipping", "train_micro_batch_size_per_gpu")
    for config in files.values():  # these are the experiment's
        assert not set(settings) & set(config.deepspeed_config or {})
        assert config.mixed_precision == "no"
