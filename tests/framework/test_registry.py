"""Components by name: listing reads folders, choosing imports one file, strangers can add their own."""

import sys
from types import SimpleNamespace

import pytest

from anastyle import registry
from anastyle.errors import ConfigError
from anastyle.registry import FUSERS, REGISTRIES

FILM = '''"""Film."""
from anastyle import FUSERS, Fuser

@FUSERS.register
class Film(Fuser):
    """Film."""
    needs = frozenset({"factors"})
    def forward(self, reading, keep=None): ...
'''


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A third party's package, announced by one entry point."""
    folder = tmp_path / "mylab_plugins" / "fusers"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "entry_points", lambda group: [SimpleNamespace(value="mylab_plugins")])
    yield folder
    for module in [name for name in sys.modules if name.startswith("mylab_plugins")]:
        del sys.modules[module]


def test_the_built_in_plugins_are_there():
    assert {"hffm", "concat", "text_tokens"} <= set(FUSERS.names())
    assert all(kind.names() for kind in REGISTRIES.values())


def test_a_strangers_plugin_is_found_by_its_file_name(stranger):
    (stranger / "film.py").write_text(FILM)

    assert "film" in FUSERS.names()
    assert FUSERS.get("film").__name__ == "Film"


def test_listing_imports_nothing(stranger):
    (stranger / "broken.py").write_text("raise RuntimeError('imported')")
    (stranger / "_helper.py").write_text("")

    assert "broken" in FUSERS.names()
    assert "_helper" not in FUSERS.names()
    assert "mylab_plugins.fusers.broken" not in sys.modules


def test_a_name_that_is_taken_is_refused(stranger):
    (stranger / "hffm.py").write_text(FILM)

    with pytest.raises(ConfigError, match=r"two fusers are called 'hffm': .*Rename one file"):
        FUSERS.names()


def test_a_file_that_registers_nothing_is_told_how(stranger):
    (stranger / "forgot.py").write_text('"""Forgot."""')

    with pytest.raises(ConfigError, match=r"forgot\.py registers no fuser\. Decorate its class with @FUSERS\.register"):
        FUSERS.get("forgot")


@pytest.mark.parametrize("line", ["import a_library_that_is_not_there", "raise RuntimeError('no driver')", "1 +"])
def test_a_plugin_that_cannot_be_imported_is_named_with_its_reason_and_the_others_still_load(stranger, line):
    (stranger / "needy.py").write_text(line)
    (stranger / "film.py").write_text(FILM)

    told = r"fuser 'needy' cannot be imported, mylab_plugins\.fusers\.needy: "
    with pytest.raises(ConfigError, match=told) as caught:
        FUSERS.get("needy")

    reason = caught.value.__cause__
    assert f"{type(reason).__name__}: {reason}".splitlines()[0] in str(caught.value)
    assert FUSERS.get("film").__name__ == "Film"


def test_a_class_of_another_kind_is_refused(stranger):
    (stranger / "wrong.py").write_text(FILM.replace("FUSERS, Fuser", "FUSERS, Encoder").replace("(Fuser)", "(Encoder)"))

    with pytest.raises(ConfigError, match="Film must subclass Fuser to be a fuser"):
        FUSERS.get("wrong")


def test_an_announced_package_that_is_gone_is_named(monkeypatch):
    monkeypatch.setattr(registry, "entry_points", lambda group: [SimpleNamespace(value="gone_plugins")])

    with pytest.raises(ConfigError, match=r"no package 'gone_plugins'\. Reinstall or remove"):
        FUSERS.names()


def test_unknown_name_suggests_the_closest():
    with pytest.raises(ConfigError, match=r"there is no fuser 'cocnat'\. Did you mean 'concat'\?\n  available: "):
        FUSERS.get("cocnat")


def test_an_incomplete_plugin_fails_when_it_is_built(stranger):
    (stranger / "half.py").write_text(FILM.replace("def forward(self, reading, keep=None): ...", ""))

    with pytest.raises(TypeError, match="forward"):
        FUSERS.get("half")(None)
