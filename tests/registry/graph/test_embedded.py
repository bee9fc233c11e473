"""The embedded engine's own process: what happens when it, its file or its user comes to harm."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from registry.errors import (
    BadInput,
    GraphBusy,
    GraphError,
    GraphOutdated,
    GraphRefused,
    GraphUnavailable,
    QueryTimeout,
    QueryTooLarge,
)
from registry.graph.base import Statement
from registry.graph.embedded import EmbeddedGraph
from registry.graph.open import open_graph, set_embedded_aside
from tests.patience import answers_within

pytestmark = pytest.mark.seconds

ADD = "UNWIND range(1, $n) AS i CREATE (n:Model {id: toString(i)})"
COUNT = "MATCH (n:Model) RETURN count(n) AS n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder that is not there" / "графы.kgl"


def count(store: EmbeddedGraph) -> int:
    found: int = store.read(COUNT).values[0][0]
    return found


def engine_of(store: EmbeddedGraph) -> psutil.Process:
    """The engine's process: the newest child that runs it."""
    assert store.version()
    mine = [
        child
        for child in psutil.Process().children()
        if child.is_running() and "registry.graph.worker" in child.cmdline()
    ]
    return max(mine, key=lambda child: child.create_time())


def kill(process: psutil.Process) -> None:
    process.send_signal(signal.SIGKILL)
    wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def wait_until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    ends_at = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends_at, "waited too long"
        time.sleep(0.02)


def run(script: str, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def test_a_killed_writer_loses_only_what_was_not_checkpointed(path: Path) -> None:
    with EmbeddedGraph(path, writing=True) as store:
        store.write([Statement(ADD, {"n": 3})])
        store.checkpoint()
        store.write([Statement("CREATE (n:Model {id: 'lost'})")])
        kill(engine_of(store))
        for _ in range(2):
            with pytest.raises(GraphUnavailable, match=r"ended unexpectedly \(signal 9\)"):
                store.write([Statement("CREATE (n:Model {id: 'more'})")])
    with EmbeddedGraph(path, writing=True) as again:
        assert count(again) == 3


def test_a_killed_reader_is_replaced(path: Path) -> None:
    with EmbeddedGraph(path, writing=True) as store:
        store.write([Statement(ADD, {"n": 3})])
        store.checkpoint()
    with EmbeddedGraph(path, writing=False) as reader:
        kill(engine_of(reader))
        with pytest.raises(GraphUnavailable, match="signal 9"):
            count(reader)
        assert count(reader) == 3


@pytest.mark.seconds
def test_killed_at_any_moment_the_file_is_the_last_checkpoint_or_the_one_before(
    path: Path,
) -> None:
    script = """
        import sys
        from pathlib import Path
        from registry.graph.base import Statement
        from registry.graph.embedded import EmbeddedGraph
        with EmbeddedGraph(Path(sys.argv[1]), writing=True) as store:
            for step in range(int(sys.argv[2]), 1_000_000):
                store.write([Statement(
                    "UNWIND range(1, 500) AS i CREATE (n:Model {id: $step + '/' + toString(i)})",
                    {"step": str(step)},
                )])
                print("begin", step, flush=True)
                store.checkpoint()
                print("end", step, flush=True)
    """
    draw, done = random.Random(0), 0
    for _ in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(path), str(done)],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert writer.stdout is not None
        assert writer.stdout.readline().startswith("begin")
        time.sleep(draw.uniform(0, 0.3))
        engines = psutil.Process(writer.pid).children()
        # The engine alone, or its user alone: both happen.
        victim = draw.choice([*engines, psutil.Process(writer.pid)])
        victim.kill()
        said = writer.stdout.read().split("\n")
        writer.stdout.close()
        writer.wait()
        for engine in engines:
            engine.wait(30)
        acknowledged = [int(line.split()[1]) + 1 for line in said if line.startswith("end")]
        begun = [int(line.split()[1]) + 1 for line in said if line.startswith("begin ")]
        with EmbeddedGraph(path, writing=True) as store:
            found = count(store)
            assert found % 500 == 0
            assert found // 500 >= max([done, *acknowledged])
            assert found // 500 <= max([done + 1, *begun])
            done = found // 500
    leftovers = {file.name for file in path.parent.iterdir()}
    assert leftovers <= {path.name, f"{path.name}.lock", f"{path.name}.lock-owner"}


def test_the_engine_ends_with_its_user(path: Path) -> None:
    script = """
        import os, sys
        from pathlib import Path
        from registry.graph.embedded import EmbeddedGraph
        store = EmbeddedGraph(Path(sys.argv[1]), writing=True)
        print("open", flush=True)
        sys.stdin.read()
    """
    user = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert user.stdin is not None
    assert user.stdout is not None
    assert user.stdout.readline() == "open\n"
    (engine,) = psutil.Process(user.pid).children()
    user.kill()
    user.wait()
    user.stdin.close()
    user.stdout.close()
    wait_until(lambda: not engine.is_running())
    EmbeddedGraph(path, writing=True).close()


def test_a_second_writer_is_told_who_writes(path: Path) -> None:
    with EmbeddedGraph(path, writing=True) as store:
        holder = engine_of(store).pid
        with pytest.raises(GraphBusy, match=rf"in use: process {holder} is writing"):
            EmbeddedGraph(path, writing=True)
        with EmbeddedGraph(path, writing=False) as reader:
            assert count(reader) == 0
    EmbeddedGraph(path, writing=True).close()


def test_the_lease_outlasts_a_clear(path: Path) -> None:
    with EmbeddedGraph(path, writing=True) as store:
        store.write([Statement(ADD, {"n": 3})])
        store.clear()
        store.checkpoint()
        with pytest.raises(GraphBusy):
            EmbeddedGraph(path, writing=True)
        assert count(store) == 0


@pytest.mark.parametrize("writing", [True, False])
def test_a_damaged_or_foreign_file_is_outdated(path: Path, writing: bool) -> None:
    with EmbeddedGraph(path, writing=True) as store:
        store.write([Statement(ADD, {"n": 3000})])
        store.checkpoint()
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:3] + b"\xff" + whole[4:], b""):
        path.write_bytes(content)
        with (
            pytest.raises(GraphOutdated, match="not readable by this version"),
            EmbeddedGraph(path, writing=writing) as store,
        ):
            store.read(COUNT)


@pytest.mark.parametrize("writing", [True, False])
@pytest.mark.parametrize("content", [b"dear diary", b"R", b"SQLite format 3\0", None])
def test_what_is_no_graph_is_left_alone(path: Path, content: bytes | None, writing: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    with (
        pytest.raises(GraphRefused, match="is not changed, because it is not"),
        EmbeddedGraph(path, writing=writing) as store,
    ):
        store.read(COUNT)
    assert content is None or path.read_bytes() == content


@pytest.mark.parametrize("ending", [".lock", ".lock-owner"])
def test_a_pipe_beside_the_graph_is_not_waited_for(path: Path, ending: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(f"{path}{ending}")
    with (
        pytest.raises(GraphRefused, match=f"{ending} next to it is not a regular file"),
        EmbeddedGraph(path, writing=True) as store,
    ):
        store.read(COUNT)


def test_a_graph_file_is_set_aside_whole(path: Path) -> None:
    url = f"kglite://{path}"
    set_embedded_aside(url)
    with EmbeddedGraph(path, writing=True) as store:
        store.write([Statement(ADD, {"n": 3})])
        store.checkpoint()
    content = path.read_bytes()
    set_embedded_aside(url)
    assert not path.exists()
    assert path.with_name(path.name + ".old").read_bytes() == content


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process: Linux")
def test_a_full_disk_keeps_the_last_checkpoint(path: Path) -> None:
    with EmbeddedGraph(path, writing=True) as store:
        store.write([Statement(ADD, {"n": 3})])
        store.checkpoint()
        store.write([Statement(
            "UNWIND range(10, 20000) AS i CREATE (n:Model {id: toString(i * 7919 % 104729)})"
        )])  # fmt: skip
        # The system then answers as on a full disk: nothing more can be written.
        resource.prlimit(engine_of(store).pid, resource.RLIMIT_FSIZE, (8192, 8192))
        with pytest.raises(GraphError, match="could not be read or written"):
            store.checkpoint()
    with EmbeddedGraph(path, writing=False) as reader:
        assert count(reader) == 3


def test_a_query_that_ignores_its_limit_is_ended_with_its_process(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedGraph(path, writing=False) as reader:
        engine = engine_of(reader)
        engine.suspend()
        with pytest.raises(QueryTimeout, match="did not stop at its time limit and was ended"):
            reader.read(COUNT, timeout_seconds=0.1)
        assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE
        assert count(reader) == 0


@pytest.mark.parametrize(
    "text",
    [
        "WITH 1 AS a " + "WITH a " * 60_000 + "RETURN a",
        "".join(f"CALL {{ RETURN 1 AS x{i} }} " for i in range(12_000)) + "RETURN 1 AS x",
        "RETURN size(reduce(s = [1], i IN range(1, 40) | s + s)) AS n",
        "RETURN reduce(s = [1], i IN range(1, 200000) | [s]) AS n",
    ],
    ids=["clauses", "subqueries", "doubling", "nesting"],
)
def test_what_takes_the_engine_beyond_its_limit_ends_with_its_process(
    path: Path, text: str
) -> None:
    with EmbeddedGraph(path, writing=False) as reader:
        assert count(reader) == 0
        with answers_within(8), pytest.raises((QueryTimeout, QueryTooLarge)) as caught:
            reader.read(text, timeout_seconds=1, memory_bytes=500_000_000)
        assert "\n" not in str(caught.value)
        assert count(reader) == 0


def test_a_query_may_take_its_memory_beside_the_graph(path: Path) -> None:
    with EmbeddedGraph(path, writing=True) as store:
        store.write([Statement("UNWIND range(1, 200000) AS i"
                               " CREATE (n:Model {id: toString(i), text: $t + toString(i)})",
                               {"t": "x" * 300})])  # fmt: skip
        store.checkpoint()
        # What is loaded does not count, and the writer has no limit.
        held = engine_of(store).memory_info().rss
        assert held > 100_000_000
        assert count(store) == 200_000
    with EmbeddedGraph(path, writing=False) as reader:
        few = "MATCH (n:Model) RETURN count(DISTINCT n.id) AS n"
        assert reader.read(few, memory_bytes=90_000_000).values == ((200_000,),)
        for _ in range(2):
            with pytest.raises(QueryTooLarge, match=r"more memory than allowed .* allow more"):
                reader.read(
                    "MATCH (n:Model) UNWIND range(1, 100) AS i"
                    " RETURN size(collect(n.text + toString(i))) AS n",
                    memory_bytes=200_000_000,
                )
            assert count(reader) == 200_000


def test_a_module_of_the_engines_name_in_the_current_folder_is_not_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("kglite.py", "json.py", "struct.py"):
        (tmp_path / name).write_text("raise SystemExit('wrong module')")
    monkeypatch.chdir(tmp_path)
    with EmbeddedGraph(path, writing=True) as store:
        assert store.version() == "kglite 0.21.2"


def test_the_engines_process_imports_nothing_heavy() -> None:
    done = run("""
        import sys
        import registry.graph.worker
        print(sorted({name.partition(".")[0] for name in sys.modules}))
    """)
    assert done.returncode == 0, done.stderr
    loaded = set(eval(done.stdout))
    assert "kglite" in loaded
    assert not loaded & {"pydantic", "sqlalchemy", "neo4j", "pandas", "numpy", "torch", "networkx"}


@pytest.mark.seconds
@pytest.mark.model
def test_transformer_lens_may_be_imported_first(path: Path) -> None:
    pytest.importorskip("transformer_lens")
    done = run(
        """
        import sys
        from pathlib import Path
        import transformer_lens
        from registry.graph.base import Statement
        from registry.graph.open import open_graph
        url = "kglite://" + sys.argv[1]
        with open_graph(url, writing=True) as store:
            store.write([Statement("CREATE (n:Model {id: 'gpt2'})")])
            store.checkpoint()
        with open_graph(url, writing=False) as store:
            print(store.read("MATCH (n:Model) RETURN n.id AS id").values)
        """,
        str(path),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(('gpt2',),)"


def test_an_unguarded_script_is_not_run_again(path: Path, tmp_path: Path) -> None:
    script = tmp_path / "notebook.py"
    script.write_text(
        "import sys\n"
        "from registry.graph.open import open_graph\n"
        "print('top level')\n"
        "with open_graph('kglite://' + sys.argv[1], writing=True) as store:\n"
        "    print(store.version())\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), str(path)],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert done.stdout == "top level\nkglite 0.21.2\n", done.stderr


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("kglite://relative/graph.kgl", "is not an absolute path"),
        ("kglite:///", "is a folder"),
        ("postgresql://localhost/graph", "is not a graph"),
        ("/just/a/path", "is not a graph"),
        ("", "is not a graph"),
        ("bolt://", "names no host"),
        ("bolt://[::1", "names no host"),
        ("bolt://ada:secret-word@localhost:7687", "must not have a user or password"),
        ("neo4j+s://secret-word@localhost", "must not have a user or password"),
        ("bolt:ada:secret-word@localhost", "is not a graph"),
        ("http://ada:secret-word@localhost", "is not a graph"),
    ],
)
def test_an_address_of_another_form_is_refused_without_its_password(url: str, why: str) -> None:
    with pytest.raises(BadInput, match=why) as caught:
        open_graph(url, user="ada", password=SecretStr("another-secret"), writing=False)
    assert "secret" not in str(caught.value)


def test_a_server_that_is_down_is_known_within_seconds() -> None:
    nobody = "bolt://127.0.0.1:1"
    with answers_within(10), pytest.raises(GraphUnavailable, match="does not answer") as caught:
        open_graph(nobody, user="a", password=SecretStr("b-secret"), writing=False)
    assert "\n" not in str(caught.value)
    assert "secret" not in repr(caught.value)


def test_a_folder_without_write_permission_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GraphError, match="could not be read or written"):
        EmbeddedGraph(tmp_path / "file" / "graph.kgl", writing=True)
    shutil.rmtree(tmp_path / "file", ignore_errors=True)
