"""A home that its user neither made nor accepted leads to its own folder alone."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import Registry
from registry.errors import BadInput, CircuitsError, HomeNotTrusted
from registry.settings.local import (
    create_home,
    load_settings,
    local_settings,
    trust,
    untrust,
)
from registry.settings.trusted_homes import accepted, list_file, trusted_homes
from tests import examples
from tests.environment import without_settings

SECRET = "hunter2-of-the-user"
EVIL = "bolt://127.0.0.1:1"


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a folder of their own, a key in it, and nothing accepted yet."""
    for name in os.environ.keys() - without_settings(os.environ).keys():
        monkeypatch.delenv(name)
    monkeypatch.setenv("CIRCUITS_CONFIG", str(tmp_path / "config"))
    folder = tmp_path / "user"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    (folder / "id_ed25519").write_text(SECRET)
    (folder / "id_ed25519").chmod(0o600)
    return folder


@pytest.fixture
def cloned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home in a repository that somebody else filled; the user works in it."""
    home = tmp_path / "clone" / ".circuits"
    home.mkdir(parents=True)
    (home / "circuits.toml").touch()
    monkeypatch.chdir(home.parent)
    return home


def says(home: Path, **values: str) -> None:
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    (home / "circuits.toml").write_text("\n".join(lines))


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ledger", "postgresql://me@203.0.113.1/db"),
        ("ledger", "postgresql:///db?host=203.0.113.1"),
        ("ledger", "sqlite:///../elsewhere.sqlite"),
        ("ledger", "sqlite:///inside/../../elsewhere.sqlite"),
        ("ledger", "sqlite:///%2E%2E/elsewhere.sqlite"),
        ("ledger", "sqlite:///~/elsewhere.sqlite"),
        ("ledger", "sqlite:////proc/self/environ"),
        ("graph", EVIL),
        ("graph", "neo4j+s://203.0.113.1"),
        ("graph", "kglite:///../graph.kgl"),
        ("graph", "kglite:///~/graph.kgl"),
        ("graph", "kglite:////tmp/graph.kgl"),
        ("artifacts", ".."),
        ("artifacts", "~"),
        ("artifacts", "~/files"),
        ("artifacts", "/tmp"),
        ("artifacts", "file:///tmp"),
        ("artifacts", "file://.."),
        ("artifacts", "local:///tmp"),
        ("artifacts", "s3://bucket/files"),
        ("artifacts", "ftp://203.0.113.1/files"),
        ("artifacts", "http://203.0.113.1/files"),
        ("artifacts", "simplecache::file:///tmp"),
        ("artifacts", "dir::ftp://203.0.113.1/files"),
        ("artifacts", "memory://files"),
    ],
)
def test_an_address_outside_the_home_is_refused_until_it_is_accepted(
    name: str, value: str, cloned: Path
) -> None:
    says(cloned, **{name: value})
    with pytest.raises(HomeNotTrusted, match=f"leads: {name} = .* 'circuits trust ") as caught:
        load_settings()
    assert "\n" not in str(caught.value)
    accepted_now = trust(cloned)
    assert [place.setting for place in accepted_now] == [name]
    load_settings()
    assert untrust(cloned)
    with pytest.raises(HomeNotTrusted):
        load_settings()


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"ledger": "sqlite:///records/ledger.sqlite"},
        {"ledger": "sqlite:///a%3Fb/../ledger.sqlite"},
        {"graph": "kglite:///graphs/one.kgl"},
        {"artifacts": "files"},
        {"artifacts": "a::b"},
        {"artifacts": "./files/../files"},
        {"graph_user": "ada", "graph_database": "theirs"},
        {"graph_password_file": "/etc/shadow"},
    ],
)
def test_stores_in_the_home_need_no_acceptance_nor_any_list(
    values: dict[str, str], cloned: Path
) -> None:
    says(cloned, **values)
    settings = load_settings()
    assert settings.graph_is_embedded
    assert settings.graph_password is None
    if values == {}:
        with Registry.init() as registry:
            registry.record(examples.circuit(1))
            assert len(registry.circuits()) == 1
    assert not list_file().exists()


def test_absolute_paths_into_the_home_stay_in_it(cloned: Path, tmp_path: Path) -> None:
    linked = tmp_path / "by another name"
    linked.symlink_to(cloned.parent)
    says(cloned, artifacts=str(linked / ".circuits" / "files"), ledger=f"sqlite:///{cloned}/l")
    load_settings()


@pytest.mark.parametrize(
    ("link", "to"),
    [
        ("ledger.sqlite", "id_ed25519"),
        ("ledger.sqlite.lock", "id_ed25519"),
        ("ledger.sqlite-wal", "id_ed25519"),
        ("ledger.sqlite-journal", "not there"),
        ("graph.kgl", "id_ed25519"),
        ("graph.kgl.lock", "not there"),
        ("artifacts", "."),
        ("artifacts/ab", "."),
        ("artifacts/.unfinished", "."),
        ("artifacts/registry.json", "id_ed25519"),
    ],
)
def test_a_link_that_leads_outside_is_refused_until_it_is_accepted(
    link: str, to: str, cloned: Path, user: Path
) -> None:
    (cloned / link).parent.mkdir(exist_ok=True)
    (cloned / link).symlink_to(user / to)
    with pytest.raises(HomeNotTrusted, match=r"circuits trust"):
        load_settings()
    trust(cloned)
    load_settings()
    # The same link to another place is another thing.
    (cloned / link).unlink()
    (cloned / link).symlink_to("/etc")
    with pytest.raises(HomeNotTrusted, match="accepted was"):
        load_settings()


def test_links_within_the_home_and_those_of_no_store_are_nobody_s_concern(
    cloned: Path, user: Path
) -> None:
    (cloned / "files").mkdir()
    (cloned / "artifacts").symlink_to("files")
    (cloned / "notes").symlink_to(user)
    load_settings()
    (cloned / "files" / "ab").symlink_to(user)
    with pytest.raises(HomeNotTrusted, match="artifacts = "):
        load_settings()


def test_gc_does_not_follow_a_link_out_of_a_cloned_home(cloned: Path, user: Path) -> None:
    Registry.init().close()
    (cloned / "artifacts" / ".unfinished").rmdir()
    (cloned / "artifacts" / ".unfinished").symlink_to(user)
    with pytest.raises(HomeNotTrusted), Registry.open() as registry:
        registry.gc(apply=True, grace_seconds=0)
    assert (user / "id_ed25519").read_text() == SECRET


def test_making_a_home_writes_through_no_link(cloned: Path, user: Path) -> None:
    (cloned / "circuits.toml").unlink()
    (cloned / ".gitignore").symlink_to(user / "new")
    (cloned / "circuits.toml").symlink_to(user / "newer")
    create_home()
    assert sorted(path.name for path in user.iterdir()) == ["id_ed25519"]


# -- passwords -------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A server that takes connections and notes what it is sent."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        yield listening


def address(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


def was_reached(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_the_server_of_these_tests_knows_when_it_is_reached(server: socket.socket) -> None:
    assert not was_reached(server)
    with socket.create_connection(server.getsockname()):
        assert was_reached(server)


COMMANDS = ("status", "doctor", "list", "sync", "rebuild", "gc", "init", "migrate", "backup b.zip")


@pytest.mark.seconds
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("store", ["graph", "ledger", "artifacts"])
def test_no_command_connects_to_an_address_of_a_cloned_home(
    store: str, command: str, cloned: Path, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    Registry.init().close()
    url = {"graph": "bolt://{}", "ledger": "postgresql://me@{}/db", "artifacts": "ftp://{}/files"}
    says(cloned, **{store: url[store].format(address(server))})
    monkeypatch.setenv("CIRCUITS_GRAPH_PASSWORD", SECRET)
    monkeypatch.setenv("PGPASSWORD", SECRET)
    done = run(*command.split())
    assert not was_reached(server)
    assert SECRET not in done.stdout + done.stderr
    if command in ("status", "doctor"):
        assert "circuits trust" in done.stderr + done.stdout
        assert address(server) in done.stdout
    else:
        (line,) = done.stderr.splitlines()
        assert line.startswith(
            "error: you neither made nor accepted the places to which the registry in "
        )
        assert done.returncode == 1


def test_a_private_key_is_not_sent_as_password(
    cloned: Path, server: socket.socket, user: Path
) -> None:
    says(cloned, graph=f"bolt://{address(server)}", graph_password_file="~/id_ed25519")
    with pytest.raises(HomeNotTrusted) as caught:
        load_settings()
    assert "graph_password_file" in str(caught.value)
    assert str(user / "id_ed25519") in str(caught.value)
    with pytest.raises(HomeNotTrusted):
        load_settings(graph=f"bolt://{address(server)}")


@pytest.mark.parametrize("named", ["graph-password", "secrets/one"])
def test_a_link_as_password_file_is_refused(named: str, cloned: Path, user: Path) -> None:
    (cloned / named).parent.mkdir(exist_ok=True)
    (cloned / named).symlink_to(user / "id_ed25519")
    says(cloned, graph_password_file=named)
    with pytest.raises(HomeNotTrusted, match="graph_password_file = "):
        load_settings(graph="bolt://mine")
    load_settings()


def test_what_the_user_names_is_the_user_s_own(
    cloned: Path, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(cloned, graph=EVIL, ledger="postgresql://evil/db", artifacts="s3://evil")
    monkeypatch.setenv("CIRCUITS_LEDGER", "postgresql://mine/db")
    monkeypatch.setenv("CIRCUITS_GRAPH_PASSWORD", SECRET)
    settings = load_settings(graph="bolt://mine", artifacts=str(user))
    assert settings.ledger == "postgresql://mine/db"
    assert settings.graph == "bolt://mine"
    assert settings.artifacts == str(user)
    assert settings.graph_password is not None


@pytest.mark.parametrize("name", ["graph_user", "graph_database"])
def test_who_signs_in_to_the_user_s_server_is_the_user_s_to_say(name: str, cloned: Path) -> None:
    says(cloned, **{name: "theirs"})
    load_settings()
    with pytest.raises(HomeNotTrusted, match=f"{name} = 'theirs'"):
        load_settings(graph="bolt://mine")
    load_settings(graph="bolt://mine", **{name: "mine"})
    trust(cloned)
    assert getattr(load_settings(graph="bolt://mine"), name) == "theirs"


def test_naming_the_folder_does_not_accept_what_is_in_it(
    cloned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(cloned, graph=EVIL)
    with pytest.raises(HomeNotTrusted):
        load_settings(cloned)
    monkeypatch.setenv("CIRCUITS_HOME", str(cloned))
    with pytest.raises(HomeNotTrusted):
        load_settings()


# -- what is accepted ------------------------------------------------------------------------------


def test_init_accepts_what_it_writes(tmp_path: Path) -> None:
    home = create_home(tmp_path / "mine", graph="bolt://mine", artifacts="files", graph_user="ada")
    settings = load_settings(home)
    assert (settings.graph, settings.graph_user) == ("bolt://mine", "ada")
    assert {place.setting for place in accepted(home)} == {"graph", "artifacts", "graph_user"}


def test_init_in_a_cloned_home_accepts_nothing(cloned: Path) -> None:
    says(cloned, graph=EVIL)
    create_home(graph="bolt://mine")
    with pytest.raises(HomeNotTrusted, match=EVIL):
        load_settings()
    with pytest.raises(HomeNotTrusted), Registry.init():
        pass


def test_links_that_lay_there_are_not_accepted_with_what_init_writes(
    cloned: Path, user: Path
) -> None:
    (cloned / "circuits.toml").unlink()
    (cloned / "artifacts").symlink_to(user)
    create_home(graph="bolt://mine")
    with pytest.raises(HomeNotTrusted) as caught:
        load_settings()
    assert "artifacts = " in str(caught.value)
    assert "graph = " not in str(caught.value)


def test_another_address_needs_consent_anew_and_the_line_says_what_it_was(cloned: Path) -> None:
    says(cloned, graph="bolt://one", artifacts="s3://bucket")
    trust()
    says(cloned, graph="bolt://other", artifacts="s3://bucket", graph_user="ada")
    with pytest.raises(HomeNotTrusted) as caught:
        load_settings()
    assert "graph = 'bolt://other' (accepted was 'bolt://one')" in str(caught.value)
    assert "s3://bucket" not in str(caught.value)
    says(cloned, artifacts="s3://bucket")
    load_settings()


def test_part_of_a_home_can_be_accepted(cloned: Path) -> None:
    says(cloned, graph="bolt://one", artifacts="s3://bucket")
    assert [place.setting for place in trust(only=["graph"])] == ["graph"]
    with pytest.raises(HomeNotTrusted, match=r"leads: artifacts = 's3://bucket'; "):
        load_settings()
    trust(only=["artifacts"])
    load_settings()


def test_a_home_by_another_name_is_the_same(cloned: Path, tmp_path: Path) -> None:
    says(cloned, graph="bolt://one")
    (tmp_path / "link").symlink_to(cloned)
    trust(tmp_path / "link")
    load_settings(cloned)


def test_another_folder_with_the_same_file_is_not_accepted(cloned: Path, tmp_path: Path) -> None:
    says(cloned, graph="bolt://one")
    trust()
    shutil.copytree(cloned, tmp_path / "copy" / ".circuits")
    with pytest.raises(HomeNotTrusted):
        load_settings(tmp_path / "copy")


def test_a_home_that_keeps_to_its_folder_leaves_the_list(cloned: Path) -> None:
    says(cloned, graph="bolt://one")
    trust()
    says(cloned)
    assert trust() == []
    assert trusted_homes() == {}


def test_a_home_that_is_gone_can_be_taken_from_the_list(cloned: Path) -> None:
    says(cloned, graph="bolt://one")
    trust()
    shutil.rmtree(cloned)
    assert untrust(cloned.parent)
    assert not untrust(cloned.parent)
    assert trusted_homes() == {}


def test_what_fails_to_be_made_is_not_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("--ledger", "postgresql://me@127.0.0.1:1/db", "init").returncode == 1
    assert trusted_homes() == {}


# -- the list --------------------------------------------------------------------------------------


def test_the_list_is_its_owner_s_alone_and_outside_of_the_home(cloned: Path) -> None:
    says(cloned, graph="bolt://one")
    before = os.umask(0)
    try:
        trust()
    finally:
        os.umask(before)
    assert stat.S_IMODE(list_file().stat().st_mode) == 0o600
    assert cloned not in list_file().parents


def test_a_list_that_others_can_write_is_not_believed(cloned: Path) -> None:
    says(cloned, graph="bolt://one")
    trust()
    list_file().chmod(0o666)
    with pytest.raises(BadInput, match=r"others may write to .*run 'chmod 600"):
        load_settings()
    says(cloned)
    load_settings()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": "x"}', '{"homes": 3}', "[" * 9999]
)
def test_a_damaged_list_is_named(text: str, cloned: Path) -> None:
    says(cloned, graph="bolt://one")
    trust()
    list_file().write_text(text)
    for attempt in (load_settings, trust):
        with pytest.raises(BadInput, match="is not a list of trusted registries; delete it"):
            attempt()


def test_a_list_that_cannot_be_written_is_named_and_init_goes_on(
    cloned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CIRCUITS_CONFIG", str(tmp_path / "file" / "below"))
    says(cloned, graph="bolt://one")
    with pytest.raises(CircuitsError, match=r"cannot .*file/below"):
        trust()
    home = create_home(tmp_path / "mine", graph="bolt://mine")
    assert "are not trusted yet" in caplog.text
    assert load_settings(home, graph="bolt://mine").graph == "bolt://mine"


def test_processes_that_accept_at_once_all_succeed(tmp_path: Path) -> None:
    homes = [create_home(tmp_path / f"home {number}") for number in range(12)]
    for home in homes:
        says(home, graph="bolt://one")
    code = (
        "import sys; from registry.settings import trust\nfor home in sys.argv[1:]: trust(home)\n"
    )
    groups = (homes[:4], homes[4:8], homes[8:])
    workers = [subprocess.Popen([sys.executable, "-c", code, *map(str, some)]) for some in groups]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0, 0]
    assert set(trusted_homes()) == set(homes)
    assert [path.name for path in list_file().parent.iterdir() if path.suffix == ".part"] == []


def test_without_the_variable_the_list_is_in_the_user_s_configuration(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CIRCUITS_CONFIG")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert user in list_file().parents
    assert list_file().parent.name == "circuit-registry"


# -- commands --------------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "registry", *arguments]
    root = str(Path(__file__).parents[3])
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": root}
    )


def test_trust_shows_what_it_accepts_lists_and_removes_it(cloned: Path) -> None:
    says(cloned, graph="bolt://one", artifacts="s3://bucket")
    done = run("trust")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["setting", "place"],
        ["graph", "bolt://one"],
        ["artifacts", "s3://bucket"],
    ]
    assert done.stderr == f"accepted for {cloned}\n"
    listed = json.loads(run("trust", "--list", "--format", "json").stdout)
    assert [(one["home"], one["place"]) for one in listed] == [
        (str(cloned), "s3://bucket"),
        (str(cloned), "bolt://one"),
    ]
    assert run("trust", "--remove", str(cloned)).returncode == 0
    assert json.loads(run("trust", "--list", "--format", "json").stdout) == []
    again = run("trust", "--remove", str(cloned))
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)


def test_trust_of_a_home_that_keeps_to_its_folder_has_nothing_to_do(cloned: Path) -> None:
    done = run("trust")
    assert (done.returncode, done.stdout) == (0, "")
    assert "all its stores are in its own folder" in done.stderr
    assert not list_file().exists()


def test_status_counts_what_a_refused_home_holds_in_its_folder(cloned: Path) -> None:
    with Registry.init() as registry:
        registry.record(examples.circuit(1))
    says(cloned, graph=EVIL, artifacts="s3://bucket")
    done = run("status", "--format", "json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["records"]["circuits"] == 1
    assert found["registry"]["graph"] == f"not accepted: graph = '{EVIL}'"
    assert found["registry"]["artifacts"].startswith("not accepted: ")
    assert "graph_state" not in found["registry"]
    says(cloned, ledger="sqlite:///../elsewhere.sqlite")
    found = json.loads(run("status", "--format", "json").stdout)
    assert set(found) == {"registry"}
    assert found["registry"]["ledger"].startswith("not accepted: ledger = ")
    assert not (cloned.parent / "elsewhere.sqlite").exists()


def test_doctor_checks_what_a_refused_home_holds_in_its_folder(cloned: Path) -> None:
    with Registry.init() as registry:
        registry.record(examples.circuit(1))
    before = sorted(path.name for path in cloned.iterdir())

    def states() -> dict[str, str]:
        found = json.loads(run("doctor", "--format", "json").stdout)
        return {one["part"]: one["state"] for one in found}

    assert states()["trust"] == "ok"
    says(cloned, graph=EVIL)
    assert states()["trust"] == "fail"
    assert states()["artifacts"] == "ok"
    assert "graph" not in states()
    says(cloned, artifacts="s3://bucket")
    assert states()["graph"] == "ok"
    assert "artifacts" not in states()
    says(cloned, ledger="postgresql://me@127.0.0.1:1/db")
    assert states()["disk"] in ("ok", "warn")
    assert states().keys() & {"ledger", "artifacts", "graph"} == set()
    assert sorted(path.name for path in cloned.iterdir()) == before


def test_control_characters_of_a_cloned_home_do_not_reach_the_terminal(cloned: Path) -> None:
    says(cloned, artifacts="s3://\x1b]0;owned\x07\u202e")
    for arguments in (["list"], ["status"], ["doctor"], ["trust"], ["trust", "--list"]):
        done = run(*arguments)
        assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout + done.stderr)


def test_nor_do_those_of_a_folder_s_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "\x1b]0;owned\x07"
    (folder / ".circuits").mkdir(parents=True)
    monkeypatch.chdir(folder)
    says(folder / ".circuits", graph=EVIL)
    for arguments in (["list"], ["status"], ["doctor"], ["trust"], ["trust", "--list"]):
        done = run(*arguments)
        assert not {"\x1b", "\x07"} & set(done.stdout + done.stderr)


def test_a_file_of_settings_that_is_a_pipe_or_huge_is_refused(cloned: Path) -> None:
    path = cloned / "circuits.toml"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BadInput, match="is a pipe; name a regular file"):
        load_settings()
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(BadInput, match="is a device"):
        load_settings()
    path.unlink()
    with path.open("wb") as file:
        file.truncate(10_000_000_000)
    with pytest.raises(BadInput, match="is longer than 1,000,000 bytes"):
        load_settings()


def test_the_error_names_both_what_and_how(cloned: Path) -> None:
    says(cloned, graph=EVIL)
    with pytest.raises(PermissionError, match=f"'circuits trust {cloned}' accepts them"):
        load_settings()
    settings, refused = local_settings()
    assert [str(place) for place in refused] == [f"graph = '{EVIL}'"]
    assert settings.graph_is_embedded
