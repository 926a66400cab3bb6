"""Plug-ins of other distributions: found by name, loaded when asked for, named when they fail."""

import sys
from types import ModuleType

import makers
import pytest

from autospine.core.errors import PlanError, TrainingError
from autospine.core.plugins import Plugin, find_plugin, installed_plugins, plugin_names, warn_if_hidden

GROUP = "autospine.losses"
ENTRIES = (
    f"[{GROUP}]\nours = their_module:thing\nbroken = no_such_module:thing\nabsent = their_module:nothing\n"
)


@pytest.fixture(autouse=True)
def site(tmp_path, monkeypatch):
    """A folder of sys.path with one distribution."""
    module = ModuleType("their_module")
    module.thing = object()
    monkeypatch.setitem(sys.modules, "their_module", module)
    makers.install_distribution(tmp_path, "theirs", ENTRIES, version="2.3")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def find(name: str) -> Plugin:
    return find_plugin(GROUP, name, kind="loss", error=TrainingError)


def test_names_are_listed_without_importing_anything():
    assert {"ours", "broken", "absent"} <= set(plugin_names(GROUP))
    assert list(plugin_names(GROUP)) == sorted(set(plugin_names(GROUP)))


def test_one_is_loaded_when_it_is_asked_for():
    assert find("ours").load() is sys.modules["their_module"].thing
    assert find("ours").description == "the loss 'ours' (their_module:thing) of the distribution theirs 2.3"


def test_it_is_found_where_a_library_has_put_another_package_in_the_place_of_importlib_metadata():
    pytest.importorskip("importlib_metadata")
    assert find("ours").load() is sys.modules["their_module"].thing


@pytest.mark.parametrize(("name", "reason"), [("broken", "ModuleNotFound"), ("absent", "Attribute")])
def test_one_that_cannot_be_loaded_is_named(name, reason):
    with pytest.raises(TrainingError, match=rf"'{name}'.*2\.3 cannot be loaded: {reason}Error.*uninstall"):
        find(name).load()


def test_none_and_several_are_refused_with_the_callers_error(site):
    with pytest.raises(PlanError, match=r"the loss 'unknown'.*found none; install one"):
        find_plugin(GROUP, "unknown", kind="loss", error=PlanError)
    makers.install_distribution(site, "seconds", f"[{GROUP}]\nours = their_module:thing\n")
    with pytest.raises(TrainingError, match=r"'ours'.*(seconds 1\.0, theirs 2\.3|theirs 2\.3, seconds 1\.0)"):
        find("ours")


def test_installed_plugins_are_listed_with_their_distribution(tmp_path, monkeypatch):
    info = tmp_path / "spine_extras-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: spine-extras\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[autospine.losses]\nfocal = absent:loss\nours = their_module:thing\ntaken = absent:loss\n"
        "well = their_module:thing\n"
        "[autospine.trackers]\nnotes = their_module:nothing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    listed = installed_plugins({"losses": {"taken"}, "metrics": {"well"}})
    found = {plugin[:2]: plugin[3] for plugin in listed if plugin[2] == "spine-extras 1.2"}
    assert list(found) == [
        *(("losses", name) for name in ("focal", "ours", "taken", "well")),
        ("trackers", "notes"),
    ]
    assert found["losses", "well"] == ""
    assert found["losses", "taken"] == "hidden by the built-in of that name"
    assert "several distributions" in found["losses", "ours"]
    assert found["losses", "focal"].startswith("cannot be loaded: ModuleNotFoundError")
    assert found["trackers", "notes"].startswith("cannot be loaded: AttributeError")


def test_one_with_the_name_of_a_built_in_object_is_named_once(caplog):
    warn_if_hidden.cache_clear()
    for name in ("ours", "ours", "unknown"):
        warn_if_hidden(GROUP, name, "loss")
    (record,) = caplog.records
    assert "'ours' (their_module:thing)" in record.getMessage()
    assert "hidden by the built-in loss" in record.getMessage()
    assert "rename" in record.getMessage()
