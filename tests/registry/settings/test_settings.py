"""Where settings come from and what they refuse."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.cli.commands import ROOT_OPTIONS
from registry.errors import BadInput, RegistryNotFound
from registry.settings.local import (
    Settings,
    create_home,
    find_home,
    home_path,
    load_settings,
    trust,
)
from registry.settings.table import PASSWORD, SETTINGS, has_password, redacted
from tests.environment import without_settings

NEO4J = "neo4j://localhost:7687"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ.keys() - without_settings(os.environ).keys():
        monkeypatch.delenv(name)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return create_home()


# -- the home folder -------------------------------------------------------------------------------


def test_the_home_is_found_from_any_folder_below(home: Path, tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_home(below) == find_home(tmp_path) == tmp_path / ".circuits"


def test_the_nearest_home_wins(home: Path, tmp_path: Path) -> None:
    inner = tmp_path / "a"
    inner.mkdir()
    create_home(inner / ".circuits")
    assert find_home(inner) == inner / ".circuits"


def test_without_a_home_the_error_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegistryNotFound, match="run 'circuits init' to make one here"):
        load_settings()
    with pytest.raises(RegistryNotFound, match="elsewhere init' makes one"):
        load_settings("elsewhere")
    assert list(tmp_path.iterdir()) == []


def test_a_home_may_be_named_by_its_project_or_itself(home: Path, tmp_path: Path) -> None:
    assert load_settings(tmp_path).home == load_settings(home).home == home


def test_a_home_may_have_any_name(tmp_path: Path) -> None:
    create_home(tmp_path / "circuits-of-gpt2")
    assert load_settings(tmp_path / "circuits-of-gpt2").home == tmp_path / "circuits-of-gpt2"


def test_a_folder_that_is_no_home_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryNotFound):
        load_settings(tmp_path)


def test_the_variable_names_the_home_to_make_and_to_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIRCUITS_HOME", str(tmp_path / "mine"))
    assert home_path() == create_home() == load_settings().home == tmp_path / "mine"


def test_making_a_home_again_keeps_what_it_says(home: Path) -> None:
    (home / "circuits.toml").write_text('graph_user = "ada"')
    create_home(home, graph_user="bob")
    assert load_settings(home).graph_user == "ada"


def test_a_home_is_not_for_version_control(home: Path) -> None:
    assert (home / ".gitignore").read_text() == "*\n"


def test_a_home_cannot_be_made_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"cannot make a registry in .*file"):
        create_home(tmp_path / "file")


# -- where values come from ------------------------------------------------------------------------


def test_defaults_lie_in_the_home(home: Path) -> None:
    settings = load_settings(home)
    assert settings.ledger == f"sqlite:///{home}/ledger.sqlite"
    assert settings.graph == f"kglite:///{home}/graph.kgl"
    assert settings.artifacts == f"{home}/artifacts"
    assert (settings.graph_user, settings.graph_database) == ("neo4j", None)
    assert settings.graph_password is None
    assert settings.graph_is_embedded


def test_option_goes_before_variable_before_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "circuits.toml").write_text('graph_user = "from file"')
    assert load_settings(home).graph_user == "from file"
    monkeypatch.setenv("CIRCUITS_GRAPH_USER", "from variable")
    assert load_settings(home).graph_user == "from variable"
    assert load_settings(home, graph_user="from option").graph_user == "from option"
    assert load_settings(home, graph_user=None).graph_user == "from variable"


def test_an_empty_variable_says_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUITS_GRAPH", "")
    assert load_settings(home).graph_is_embedded


def test_every_setting_has_a_variable_and_an_option(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        "ledger": "postgresql://me@host/db",
        "graph": "bolt://host:7687",
        "graph_user": "ada",
        "graph_database": "circuits",
        "artifacts": "s3://bucket/circuits",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"CIRCUITS_{name.upper()}", value)
    settings = load_settings(home)
    assert {name: getattr(settings, name) for name in given} == given
    options = {option for option, _, _ in ROOT_OPTIONS}
    assert {setting.option for setting in SETTINGS} < options
    fields = {setting.name for setting in (*SETTINGS, PASSWORD)} - {"graph_password_file"}
    assert fields == set(Settings.model_fields)


def test_relative_paths_start_at_the_home_in_its_file_and_here_elsewhere(
    home: Path, tmp_path: Path
) -> None:
    (home / "circuits.toml").write_text('ledger = "sqlite:///l.db"\nartifacts = "../shared"\n')
    trust(home)
    settings = load_settings(home, graph="kglite:///g.kgl")
    assert settings.ledger == f"sqlite:///{home}/l.db"
    assert Path(settings.artifacts).resolve() == tmp_path / "shared"
    assert settings.graph == f"kglite:///{tmp_path}/g.kgl"


def test_what_a_new_home_keeps_is_what_a_later_command_reads(home: Path, tmp_path: Path) -> None:
    new = create_home(tmp_path / "new", graph=NEO4J, artifacts="files", graph_user='a "b" \\ü')
    settings = load_settings(new)
    assert settings.graph == NEO4J
    assert settings.artifacts == str(tmp_path / "files")
    assert settings.graph_user == 'a "b" \\ü'


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("graph = ", "is not TOML"),
        ("graph = 3", "graph is 3; it must be text in quotes"),
        ('grpah = "x"', "no setting 'grpah'; there are ledger, graph,"),
        ('home = "x"', "no setting 'home'"),
        ('graph = "redis://x"', "graph in .*circuits.toml is 'redis://x'; it must be kglite:///"),
        ('graph_password = "x"', "a password does not belong there; set CIRCUITS_GRAPH_PASSWORD"),
        (
            'ledger = "postgresql://me:secret@host/db"',
            "ledger contains a password, which does not belong there; .* CIRCUITS_LEDGER",
        ),
    ],
)
def test_a_fault_in_the_file_is_named_and_no_password_repeated(
    text: str, says: str, home: Path
) -> None:
    (home / "circuits.toml").write_text(text)
    with pytest.raises(BadInput, match=says) as caught:
        load_settings(home)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ledger": "mysql://host/db"}, "--ledger is 'mysql://host/db'; it must be sqlite:///PATH"),
        ({"ledger": "ledger.sqlite"}, "--ledger is 'ledger.sqlite'; it must be sqlite:///PATH"),
        ({"ledger": "sqlite://"}, "--ledger is 'sqlite://'; it must be sqlite:///PATH"),
        ({"graph": "graph.kgl"}, "--graph is 'graph.kgl'; it must be kglite:///PATH"),
        ({"graph": "bolt://"}, "--graph is 'bolt://'"),
        ({"graph": "kglite://graph.kgl"}, "it must be kglite:///PATH"),
        ({"graph": "bolt://neo4j:secret@host"}, "--graph names a user or password in its URL"),
        ({"grpah": "x"}, "no setting 'grpah'"),
    ],
)
def test_a_malformed_setting_is_named_with_what_would_be_right(
    settings: dict[str, str], says: str, home: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        load_settings(home, **settings)
    assert "secret" not in str(caught.value)
    with pytest.raises(BadInput):
        create_home(tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()


def test_a_malformed_variable_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUITS_LEDGER", "oracle://me:secret@host")
    with pytest.raises(BadInput, match=r"CIRCUITS_LEDGER is 'oracle://me:\*\*\*@host'"):
        load_settings(home)


# -- passwords -------------------------------------------------------------------------------------


def test_the_password_comes_from_the_environment_before_the_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_secret(home / "graph-password", "from file\n")
    from_file = load_settings(home, graph=NEO4J).graph_password
    assert from_file is not None
    assert from_file.get_secret_value() == "from file"
    monkeypatch.setenv("CIRCUITS_GRAPH_PASSWORD", "from variable")
    from_variable = load_settings(home, graph=NEO4J).graph_password
    assert from_variable is not None
    assert from_variable.get_secret_value() == "from variable"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o666])
def test_a_password_file_that_others_can_reach_is_refused(mode: int, home: Path) -> None:
    write_secret(home / "graph-password", "secret", mode)
    with pytest.raises(BadInput, match=rf"is open to others \(mode {mode:o}\); run 'chmod 600"):
        load_settings(home, graph=NEO4J)


def a_pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


def a_folder(path: Path) -> None:
    path.mkdir(0o700)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def endless(path: Path) -> None:
    write_secret(path, "")
    os.truncate(path, 1 << 40)


def bytes_that_are_no_text(path: Path) -> None:
    path.touch(0o600)
    path.write_bytes(b"\xff\xfe")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (a_pipe, "is a pipe; name a regular file"),
        (a_folder, "is a folder; name a regular file"),
        (a_socket, "is a socket; name a regular file"),
        (a_device, "is a device; name a regular file"),
        (endless, "is longer than 4,096 bytes"),
        (bytes_that_are_no_text, "is not text in UTF-8"),
    ],
)
def test_a_password_file_is_a_small_regular_file(
    make: Callable[[Path], None], says: str, home: Path, tmp_path: Path
) -> None:
    make(tmp_path / "secret")
    with pytest.raises(BadInput, match=rf"the password file .*secret {says}") as caught:
        load_settings(home, graph=NEO4J, graph_password_file="secret")
    assert "\n" not in str(caught.value)


def test_a_pipe_is_refused_though_somebody_writes_into_it(home: Path, tmp_path: Path) -> None:
    a_pipe(tmp_path / "secret")
    with subprocess.Popen(["sh", "-c", "echo secret > secret"], cwd=tmp_path) as writer:
        with pytest.raises(BadInput, match="is a pipe"):
            load_settings(home, graph=NEO4J, graph_password_file="secret")
        writer.kill()


@pytest.mark.parametrize("password", ["p", "ünï ☃", " spaces ", "x" * 4096, "two\nlines"])
def test_a_password_of_any_letters_is_read_whole(password: str, home: Path) -> None:
    write_secret(home / "graph-password", password)
    found = load_settings(home, graph=NEO4J).graph_password
    assert found is not None
    assert found.get_secret_value() == password


def test_an_embedded_graph_needs_no_password(home: Path) -> None:
    write_secret(home / "graph-password", "secret", 0o644)
    assert load_settings(home).graph_password is None


def test_a_password_file_may_lie_elsewhere_but_must_exist(home: Path, tmp_path: Path) -> None:
    write_secret(tmp_path / "neo4j.txt", "secret")
    settings = load_settings(home, graph=NEO4J, graph_password_file="neo4j.txt")
    assert settings.graph_password is not None
    with pytest.raises(BadInput, match=r"--graph-password-file names .*absent, which does not"):
        load_settings(home, graph=NEO4J, graph_password_file="absent")


def test_no_password_is_shown(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUITS_GRAPH_PASSWORD", "hidden1")
    monkeypatch.setenv("CIRCUITS_LEDGER", "postgresql://me:hidden2@host/db")
    monkeypatch.setenv("CIRCUITS_ARTIFACTS", "sftp://me:hidden3@host/files")
    settings = load_settings(home, graph=NEO4J)
    assert "hidden" not in repr(settings) + str(settings) + str(settings.describe())
    assert settings.describe()["ledger"] == "postgresql://me:***@host/db"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:p%40ss@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg://me:a:b@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql://:pw@host", "postgresql://:***@host"),
        ("postgresql://me:p@ss@host/db", "postgresql://me:***@host/db"),
        (
            "postgresql://host/db?user=me&password=pw&x=1",
            "postgresql://host/db?user=me&password=***&x=1",
        ),
        ("cannot reach 'sftp://u:pw@h/x' now", "cannot reach 'sftp://u:***@h/x' now"),
        ("bolt://localhost:7687", "bolt://localhost:7687"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
    ],
)
def test_passwords_of_urls_are_blotted_out(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert has_password(text) == (text != shown)


def write_secret(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)
