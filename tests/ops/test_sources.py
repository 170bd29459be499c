"""What our own sources never do, whoever edits them next: read pickles, run text, unpack archives, fetch code."""

import ast
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from anastyle import packages

ROOT = Path(__file__).parents[2]
SOURCES = sorted(file for root in ("framework", "plugins", "launch") for file in (ROOT / root).rglob("*.py"))
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "runpy", "code"}
FORBIDDEN_CALLS = {
    "os.system", "os.popen", "yaml.load", "yaml.full_load", "yaml.unsafe_load", "tarfile.extract", "tarfile.extractall",
    "shutil.unpack_archive", "np.load", "numpy.load", "np.fromfile", "torch.load", "torch.jit.load", "torch.hub.load",
    "torch.package.PackageImporter", "hydra.utils.instantiate", "mlflow.pyfunc.load_model", "mlflow.pytorch.load_model",
    "joblib.load", "pd.read_pickle", "pandas.read_pickle", "load_from_checkpoint", "register_for_checkpointing",
}  # fmt: skip
ALLOWED = {("fetch.py", "torch.load")}  # tensors of an old model, once, where there is a network; see below
FLOORS = {  # what was fixed in these versions ran code, read files, or wrote to memory
    "torch": "2.10", "diffusers": "0.38", "transformers": "5.3", "mlflow": "3.10",
}  # fmt: skip


def name_of(call: ast.Call) -> str:
    """Return a call's dotted name, as far as it has one."""
    words, node = [], call.func
    while isinstance(node, ast.Attribute):
        words.append(node.attr)
        node = node.value
    return ".".join(reversed([*words, node.id] if isinstance(node, ast.Name) else words))


def calls(file: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]


def keywords(call: ast.Call) -> dict[str | None, str]:
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_there_is_something_to_look_at():
    assert len(SOURCES) > 100


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_source_runs_nothing_that_it_reads(file):
    assert not {name.split(".")[0] for name in imports(file)} & FORBIDDEN_MODULES
    for call in calls(file):
        name, given = name_of(call), keywords(call)
        last = name.rsplit(".", 1)[-1]
        assert not (isinstance(call.func, ast.Name) and name in ("eval", "exec", "compile", "__import__")), name
        assert (file.name, name) in ALLOWED or not {name, last} & FORBIDDEN_CALLS, name
        assert last not in ("extract", "extractall"), name
        assert given.get("trust_remote_code", "False") == "False"
        assert given.get("allow_pickle", "False") == "False"
        assert given.get("shell", "False") == "False"
        assert given.get("weights_only", "True") == "True"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_models_are_read_as_safetensors_from_this_machine(file):
    others = ("Tokenizer", "Processor", "Pipeline", "Peft", "Scheduler", "Pil")
    for call in calls(file):
        owner, _, last = name_of(call).rpartition(".")
        if last != "from_pretrained" or any(word in owner for word in others):
            continue
        given = keywords(call)
        assert given.get("use_safetensors") == "True", ast.unparse(call)
        assert given.get("local_files_only") == "True" or None in given, ast.unparse(call)


def test_shards_are_written_by_webdataset_and_never_decoded_by_it():
    used = {name for file in SOURCES for name in imports(file) if name.split(".")[0] in ("webdataset", "wids")}

    assert used == {"webdataset.writer", "webdataset.writer.TarWriter"}


def test_the_one_reader_of_old_weights_takes_tensors_alone():
    fetch = ROOT / "framework" / "anastyle" / "fetch.py"
    loads = [keywords(call) for call in calls(fetch) if name_of(call) == "torch.load"]

    assert [given.get("weights_only") for given in loads] == ["True"]


def test_versions_with_known_holes_are_below_the_floors():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {need.name: need.specifier for need in map(Requirement, project["dependencies"])}

    for name, fixed in FLOORS.items():
        assert needed[name].contains(fixed)
        major, _, minor = fixed.partition(".")
        assert not needed[name].contains(f"{major}.{int(minor) - 1}.99"), name


def test_the_tested_set_names_what_we_need_and_is_what_pip_is_told():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [Requirement(line) for line in project["dependencies"]]

    assert not [need for need in needed if not need.specifier.contains(packages.tested()[need.name])]
    assert "-c framework/anastyle/tested.txt" in (ROOT / "constraints.txt").read_text()
    assert "tested.txt" in (ROOT / "setup.cfg").read_text()
    assert requires("anastyle")


def test_servers_in_our_examples_listen_to_this_machine_alone():
    texts = [file for pattern in ("*.md", "launch/*", "experiments/*", "tests/tools/*") for file in ROOT.glob(pattern)]
    for file in (file for file in texts if file.is_file()):
        for line in file.read_text(encoding="utf-8").splitlines():
            assert "0.0.0.0" not in line, file
            assert "mlflow server" not in line or "127.0.0.1" in line or line.lstrip().startswith('"""'), (file, line)


@pytest.mark.parametrize(
    "text",
    [
        "eval('1')",
        "exec(x)",
        "torch.load(f)",
        "a.extractall()",
        "import pickle",
        "from joblib import load",
        "run(x, shell=True)",
        "np.load(f, allow_pickle=True)",
        "A(trust_remote_code=True)",
    ],
)
def test_these_tests_see_what_they_look_for(tmp_path, text):
    file = tmp_path / "some.py"
    file.write_text(f"network.eval()\nbuild().eval()\nre.compile('x')\n{text}\n")

    with pytest.raises(AssertionError):
        test_a_source_runs_nothing_that_it_reads(file)
