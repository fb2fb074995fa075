"""The house rules that no linter knows."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted([*(ROOT / "dcgan_dist").rglob("*.py"), *(ROOT / "shards").rglob("*.py")])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_short_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 350
    assert ast.get_docstring(ast.parse(text)), "the first words of a module say what it is for"


def test_the_training_loop_is_under_60_lines() -> None:
    tree = ast.parse((ROOT / "dcgan_dist" / "train.py").read_text())
    train = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "train")
    assert train.end_lineno is not None
    assert train.end_lineno - train.lineno < 60


def users(word: str) -> set[str]:
    return {path.name for path in MODULES if word in path.read_text()}


def test_only_the_world_reads_the_launchers_environment() -> None:
    assert users('"RANK"') == users("WORLD_SIZE") == users("LOCAL_RANK") == {"world.py"}


def test_only_parallel_wraps_a_network() -> None:
    assert users("DistributedDataParallel") == {"parallel.py"}


def test_nothing_unpickles_or_evaluates() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & {"pickle", "marshal", "shelve"}, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"eval", "exec", "torch.load", "os.system"}, f"{path}: {called}"
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", path


def test_nothing_is_left_to_do() -> None:
    found = subprocess.run(
        ["git", "grep", "-lE", "TODO|FIXME|XXX", "--", ":!tests/test_structure.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""
