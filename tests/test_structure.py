"""The house rules that no linter knows."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted([*(ROOT / "dcgan_dist").rglob("*.py"), *(ROOT / "shards").rglob("*.py")])
LAUNCH = sorted((ROOT / "launch").rglob("*.py"))


def test_modules_are_short_and_say_what_they_are_for() -> None:
    texts = {path: path.read_text() for path in MODULES}
    assert len(texts) > 100
    assert [path for path, text in texts.items() if len(text.splitlines()) > 350] == []
    assert [path for path, text in texts.items() if not ast.get_docstring(ast.parse(text))] == []


def test_the_training_loop_is_under_60_lines() -> None:
    tree = ast.parse((ROOT / "dcgan_dist" / "training" / "trainer.py").read_text())
    train = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "train")
    assert train.end_lineno is not None
    assert train.end_lineno - train.lineno < 60


def imports() -> dict[str, set[str]]:
    """Each module, and the modules of ours that it imports anywhere in it."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in MODULES
    }
    arrows: dict[str, set[str]] = {}
    for name, path in files.items():
        arrows[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                arrows[name] |= {alias.name for alias in node.names} & files.keys()
            if isinstance(node, ast.ImportFrom) and node.module:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                arrows[name] |= (whole | {node.module}) & files.keys() if whole - files.keys() else whole
    return arrows


def test_no_module_imports_itself_by_a_detour() -> None:
    arrows, finished = imports(), set[str]()
    assert sum(map(len, arrows.values())) > 500

    def follow(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in finished:
            for other in sorted(arrows[name]):
                follow(other, (*way, name))
            finished.add(name)

    for name in sorted(arrows):
        follow(name, ())


TOP = {
    "dcgan_dist": {
        "__main__",
        "library",
        "convert",
        "evaluate",
        "export",
        "sample",
        "train",
        "data",
        "launched",
        "pictures",
        "seeds",
    },
    "shards": {"__main__", "arrays", "command", "errors", "extras", "machine", "printable", "redact"},
}
"""Commands, and what nearly every room imports."""


def test_all_else_lies_in_a_room() -> None:
    for package, names in TOP.items():
        assert {path.stem for path in (ROOT / package).glob("*.py")} == names | {"__init__"}


def test_functions_fit_a_screen() -> None:
    lengths = {
        f"{path.relative_to(ROOT)}:{node.lineno}": (node.end_lineno or 0) - node.lineno + 1
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert len(lengths) > 1000
    assert {where for where, lines in lengths.items() if lines > 60} == set()


def users(word: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in MODULES if word in path.read_text()}


def test_only_one_module_reads_the_launchers_environment() -> None:
    for word in ('"RANK"', "WORLD_SIZE", "LOCAL_RANK"):
        # The others write it, for they are launchers.
        writers = {"dcgan_dist/ranks/local.py", "dcgan_dist/slurm/task.py"}
        assert users(word) == {"dcgan_dist/ranks/launcher.py"} | writers, word


def test_submitits_private_names_are_used_in_one_place() -> None:
    for word in ("submitit.slurm", "submitit.core._"):
        assert users(word) == {"dcgan_dist/slurm/batch_script.py"}, word


def test_only_parallel_wraps_a_network() -> None:
    assert users("DistributedDataParallel") == {"dcgan_dist/training/players.py"}


PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
PROGRAMS = re.compile(
    r"(builtins\.)?(eval|exec|compile|__import__)|torch\.load|torch\.jit\.load|os\.(system|popen|exec\w+|spawn\w+)"
    r"|yaml\.(load|load_all|full_load|unsafe_load|unsafe_load_all)|subprocess\.(getoutput|getstatusoutput)"
    r"|importlib\.import_module|runpy\.\w+|(pd|pandas)\.read_pickle"
)


def dangers(source: str) -> list[str]:
    """What in a module could run what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLES]
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [n for n in names if n.split(".")[0] in PICKLES or PROGRAMS.fullmatch(n)]
        if isinstance(node, ast.Call) and PROGRAMS.fullmatch(ast.unparse(node.func)):
            found.append(ast.unparse(node.func))
        if isinstance(node, ast.keyword) and node.arg in ("shell", "allow_pickle"):
            found += [] if ast.unparse(node.value) == "False" else [ast.unparse(node)]
    return found


@pytest.mark.parametrize(
    "source",
    [
        *(
            "import pickle",
            "from pickle import loads",
            "import a, cloudpickle as c",
            "from joblib import load",
        ),
        *("eval(x)", "torch.load(x)", "from torch import load", "torch.jit.load(x)", "os.system(x)"),
        *(
            "from os import popen",
            "yaml.load(x, Loader=L)",
            "from yaml import unsafe_load",
            "np.load(x, allow_pickle=a)",
        ),
        *(
            "subprocess.run(x, shell=True)",
            "subprocess.run(x, shell=y)",
            "__import__(x)",
            "runpy.run_path(x)",
        ),
    ],
)
def test_what_could_run_a_file_is_seen(source: str) -> None:
    assert dangers(source)


def test_nothing_unpickles_or_evaluates() -> None:
    sound = "import yaml\nyaml.safe_load(x)\nnp.load(x, allow_pickle=False)\nre.compile(x)\ntorch.compile(x)"
    assert dangers(sound) == []
    found = {str(path.relative_to(ROOT)): dangers(path.read_text()) for path in [*MODULES, *LAUNCH]}
    # TorchScript whose sha256 the user has given.
    assert found.pop("dcgan_dist/scores/inception.py") == ["torch.jit.load"]
    # The trainer or the builder that a job was sent for, and the job's own Python.
    assert found.pop("dcgan_dist/slurm/local.py") == ["runpy.run_module"]
    assert found.pop("dcgan_dist/slurm/task.py") == ["os.execve"]
    # A command of ours.
    assert found.pop("dcgan_dist/__main__.py") == ["os.execv"]
    assert {path: told for path, told in found.items() if told} == {}


def test_nothing_is_left_to_do() -> None:
    folders = ("benchmarks", "configs", "dcgan_dist", "docs", "launch", "shards", "tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.suffix in (".md", ".toml") or path.name == "Makefile"]
    texts = {path: path.read_text() for path in files if path.suffix not in (".pyc", ".png", ".safetensors")}
    assert Path(__file__) in texts
    left = re.compile("TOD[O]|FIXM[E]|XX[X]")
    assert [path for path, text in texts.items() if left.search(text)] == []


def test_the_map_shows_every_room() -> None:
    shown = set(re.findall(r"`([a-z_]+/|[a-z_]+\.py)`", (ROOT / "CONTRIBUTING.md").read_text()))
    rooms = {f"{path.parent.name}/" for path in MODULES if path.name == "__init__.py"}
    inner = {f"{path.parent.name}/" for path in ROOT.glob("*/*/*/__init__.py")}
    commands = {path.name for path in (ROOT / "dcgan_dist").glob("*.py") if "def main" in path.read_text()}
    assert shown >= rooms - inner | commands
    # A room that is only announced has no place on it.
    top = {path.name for path in (ROOT / "dcgan_dist").glob("*.py")}
    assert shown - rooms - top == {"tests/", "configs/", "benchmarks/"} | ({"slurm/"} - rooms)
