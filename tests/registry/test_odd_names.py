"""Folders of any name: what they hold lies in them, and is found again."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from registry import Registry
from registry.cli.main import main
from registry.errors import BadInput
from registry.files.artifacts import ArtifactStore
from registry.ledger.engine import database_path, parse_url, shown
from registry.settings.file_urls import expanded, read_path, url_path
from registry.settings.homes import read_values
from registry.settings.local import create_home, load_settings
from tests import examples
from tests.environment import without_settings
from tests.few import n_examples

ODD = (
    "q?one", "a#b", "100%", "%41", "%2F..%2F", "a::b", "simplecache::x", "*", "a[b]", "a b", " ",
    "it's", '"', "back\\slash", "new\nline", "tab\t", "me:pw@host", "a&b=c;d", "ünïcode ☃ 日本",
    "\x7f\x01", "~", "~root", "-x", ".hidden", "file:", "{x}", "$HOME", "\u202e", "x" * 255,
    "?token=x", "a.toml", "sqlite:", "CON",
)  # fmt: skip

_LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
_ODD_LETTERS = st.sampled_from("?#%&:*[]{} '\"\\\n@~;=+$.é41")
names = st.text(_LETTERS | _ODD_LETTERS, min_size=1).filter(
    lambda name: name not in (".", "..") and len(name.encode()) <= 255
)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ.keys() - without_settings(os.environ).keys():
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def use(folder: Path) -> None:
    """Record, read, back up and restore in a folder, and look where everything went."""
    (folder / "b").mkdir(parents=True)
    home, restored = folder / ".circuits", folder / "restored"
    circuit = examples.circuit(1)
    with Registry.init(home) as registry:
        registry.record(examples.GPT2, circuit)
    with Registry.open(folder) as registry:
        assert [entry.id for entry in registry.circuits()] == [circuit.id]
        assert registry.document(circuit.id) == circuit
        rows = registry.cypher("MATCH (c:Circuit) RETURN c.id AS id")
        assert rows.to_dicts() == [{"id": circuit.id}]
        registry.backup(folder / "b" / folder.name)
        assert registry.gc(apply=True, grace_seconds=0).addresses == ()
    with Registry.restore(folder / "b" / folder.name, restored) as registry:
        assert [entry.id for entry in registry.circuits()] == [circuit.id]
    assert list(folder.parent.iterdir()) == [folder]
    for made in (home, restored):
        held = {path.name for path in made.iterdir()}
        assert held >= {"artifacts", "circuits.toml", "graph.kgl", "ledger.sqlite"}
        with sqlite3.connect(made / "ledger.sqlite") as ledger:
            assert ledger.execute("SELECT count(*) FROM circuits").fetchone() == (1,)
        ledger.close()


@pytest.mark.seconds
@pytest.mark.parametrize("name", ODD)
def test_a_folder_of_an_odd_name_holds_its_registry(name: str, tmp_path: Path) -> None:
    use(tmp_path / "in" / name)


@pytest.mark.seconds
@settings(max_examples=n_examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=names)
def test_a_folder_of_any_name_holds_its_registry(name: str, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as parent:
        use(Path(parent) / name)


@pytest.mark.seconds
@pytest.mark.parametrize(
    "name", ["q?one", "~", "~root", "~nobody-of-that-name", "-x", "a::b", "%41"]
)
def test_commands_make_a_registry_in_the_folder_that_they_are_given(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "--", name]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]
    monkeypatch.chdir(tmp_path / name)
    with Registry.open() as registry:
        registry.record(examples.circuit(1))
    assert main(["backup", "--", f"{name}.zip"]) == 0
    assert main(["restore", "--", f"{name}.zip", f"{name}two"]) == 0
    assert main(["doctor"]) == 0, capsys.readouterr().out
    assert {path.name for path in (tmp_path / name).iterdir()} == {
        ".circuits", f"{name}.zip", f"{name}two",
    }  # fmt: skip


def test_two_folders_that_differ_after_a_question_mark_are_two(tmp_path: Path) -> None:
    for name in ("q?one", "q?two"):
        Registry.init(tmp_path / name).close()
    with Registry.open(tmp_path / "q?one") as one, Registry.open(tmp_path / "q?two") as two:
        one.record(examples.circuit(1))
        assert two.circuits() == []
        assert one.ledger.registry_id != two.ledger.registry_id
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q?one", "q?two"]


def test_a_folder_whose_name_is_no_text_is_refused_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / os.fsdecode(b"\xff\xfe")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes no such names")
    monkeypatch.chdir(folder)
    with pytest.raises(BadInput, match=r"'.*udcff.*' ?, which is not text in UTF-8"):
        Registry.init()
    assert list(folder.iterdir()) == []
    (folder / ".circuits").mkdir()
    for command in ("init", "status"):
        assert main([command]) == 2
        assert "is not text in UTF-8" in capsys.readouterr().err.splitlines()[0]
    assert list((folder / ".circuits").iterdir()) == []


# -- URLs ------------------------------------------------------------------------------------------


@given(name=names)
@example(name="%25")
@example(name="~")
def test_a_path_comes_out_of_its_url_as_it_went_in(name: str) -> None:
    path = Path("/a") / name / "b"
    written = url_path(path)
    assert not set(written) & set("?#\n\r\x00")
    assert read_path(written, Path("/elsewhere")) == path
    ledger = parse_url(f"sqlite:///{written}")
    assert database_path(ledger) == path
    assert shown(ledger) == f"sqlite:///{written}"
    assert ledger.query == {}


@given(name=names)
def test_a_file_of_settings_gives_back_the_paths_that_were_kept_in_it(name: str) -> None:
    with tempfile.TemporaryDirectory() as parent:
        there = Path(parent) / name
        home = create_home(
            Path(parent) / name,
            ledger=f"sqlite:///{url_path(there / 'l')}",
            graph=f"kglite:///{url_path(there / 'g')}",
            artifacts=str(there / "files"),
            graph_user=name,
            graph_password_file=str(there / "password"),
        )
        found = load_settings(home)
        assert database_path(parse_url(found.ledger)) == there / "l"
        assert found.graph == f"kglite:///{url_path(there / 'g')}"
        assert found.artifacts == str(there / "files")
        assert read_values(home)["graph_user"] == name
        assert read_values(home)["graph_password_file"] == str(there / "password")


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("data/my ledger.sqlite", "/base/data/my ledger.sqlite"),
        ("data/my%20ledger.sqlite", "/base/data/my ledger.sqlite"),
        ("/abs/ünï.sqlite", "/abs/ünï.sqlite"),
        ("//abs/x", "/abs/x"),
        ("a+b@c:d&e=f", "/base/a+b@c:d&e=f"),
        ("100%.sqlite", "/base/100%.sqlite"),
        ("100%zz", "/base/100%zz"),
        ("../x", "/base/../x"),
        ("%7E/x", "/base/~/x"),
        ("~nobody-of-that-name/x", "/base/~nobody-of-that-name/x"),
    ],
)
def test_what_stands_in_a_url_means_a_path(written: str, path: str) -> None:
    assert read_path(written, Path("/base")) == Path(path)


def test_a_tilde_is_the_user_s_folder_whatever_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/users/100%41")
    assert read_path("~/a%3Fb", Path("/base")) == Path("/users/100%41/a?b")
    assert expanded("~nobody-of-that-name") == Path("~nobody-of-that-name")


@pytest.mark.parametrize("written", ["a%00b", "%FF", "a\0b", "\udcff"])
def test_what_is_no_path_is_refused(written: str) -> None:
    with pytest.raises(BadInput, match="is not a path in UTF-8"):
        read_path(written, Path("/base"))


@pytest.mark.parametrize("url", ["sqlite:///a?b", "sqlite:////a?mode=ro&uri=true", "sqlite:///?"])
def test_sqlite_takes_no_options(url: str, tmp_path: Path) -> None:
    home = create_home(tmp_path / "home")
    with pytest.raises(BadInput, match="as %3F"):
        load_settings(home, ledger=url)
    with pytest.raises(BadInput, match="as %3F"):
        parse_url(url)


# -- artifacts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD)
def test_artifacts_lie_in_the_folder_that_is_named(name: str, tmp_path: Path) -> None:
    data = b"data"
    stores = [
        ArtifactStore(str(tmp_path / "in" / name)),
        ArtifactStore(f"file://{url_path(tmp_path / 'in' / name)}"),
    ]
    for store in stores:
        address = store.put(data)
        assert list(store.addresses()) == [address]
        assert store.get(address) == data
        assert str(tmp_path / "in") in repr(store).replace("\\\\", "\\")
    assert store.remove(address)
    assert [path.name for path in (tmp_path / "in").iterdir()] == [name]


@pytest.mark.parametrize("name", [name for name in ODD if set("*[{") & set(name)] + ["a?b"])
def test_a_name_elsewhere_is_no_pattern(name: str) -> None:
    beside = ArtifactStore("memory://patterns/aXb")
    beside.put(b"beside")
    store = ArtifactStore(f"memory://patterns/{name}")
    address = store.put(b"data")
    assert list(store.addresses()) == [address]
    assert store.get(address) == b"data"
    assert store.remove_leftovers(grace_seconds=0) == ()


def test_a_foreign_file_of_almost_an_artifact_s_name_is_none(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    address = store.put(b"data")
    (tmp_path / address[:2] / f"{'0' * 62}\n").touch()
    assert list(store.addresses()) == [address]
