"""Every path that somebody gives: home folders are filled in, and an empty one is refused in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dcgan_dist import convert, evaluate, export, sample
from dcgan_dist.chaos import kill
from dcgan_dist.config.__main__ import main as check_config
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.rules import check
from dcgan_dist.config.settings import Config, parse_config, read_config
from dcgan_dist.explore.__main__ import main as explore
from dcgan_dist.probe.__main__ import main as probe
from dcgan_dist.report.__main__ import main as report
from dcgan_dist.train import main as train
from shards import ShardsError
from shards.__main__ import main as shards
from shards.storage import store
from shards.storage.paths import given
from tests.numbered import in_memory

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home folder, and another folder to be in, which stays empty."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "home"
    assert [path.name for path in (tmp_path / "here").iterdir()] == []


@pytest.mark.parametrize(
    "text", ["", " ", "\t", "s3://", "s3:///set", "http:///set", "file://", "a\0b", "~nobody-of-this-name/x"]
)
def test_what_names_no_place_is_refused(text):
    with pytest.raises(ShardsError, match=r"^run\.dir: '") as told:
        given(text, "run.dir")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "text",
    [
        "a",
        ".",
        "..",
        "/",
        "./~a",
        "a~",
        "s3://b/~/x",
        "s3://b",
        "memory://x",
        "memory:///x",
        "file:///x",
        "a b",
    ],
)
def test_a_place_stays_as_it_was_given(text):
    assert given(text, "x") == text


def test_home_folders_are_filled_in(home):
    assert [given(text, "x") for text in ("~", "~/a/b", "file://~/a")] == [
        str(home),
        f"{home}/a/b",
        f"file://{home}/a",
    ]
    assert given("~root/a", "x") == f"{Path('~root').expanduser()}/a"


def test_an_empty_path_is_never_the_root():
    with pytest.raises(ShardsError, match=r"an empty path holds no index\.json"):
        store.join("", "index.json")


SHARDS = [
    ["build", "rooms", ""],
    ["build", "folder", "", "out"],
    ["build", "folder", "in", ""],
    ["build", "folder", "in", " "],
    *(["build", source, "", "out"] for source in ("lsun", "webfaces", "imagenet", "celeba", "webdataset")),
    *(["build", source, "", "out"] for source in ("cifar10", "mnist", "svhn")),
    ["build", "imagenet", "in", "out", "--split", "val", "--devkit", ""],
    *([command, ""] for command in ("index", "verify", "info", "bench", "dedup")),
    ["cat", "", "0"],
    ["cat", "set", "0", "--out", ""],
    ["cp", "", "out"],
    ["cp", "in", ""],
    ["cp", "in", "s3:///out"],
]


@pytest.mark.parametrize("words", SHARDS, ids=" ".join)
def test_every_command_of_shards_refuses_an_empty_path(words, capsys):
    with pytest.raises(SystemExit) as end:
        shards(words)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "names no" in line


SETTINGS = ["data.url", "data.cache_dir", "run.dir", "eval.inception"]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("command", [train, check_config])
def test_every_setting_that_is_a_path_is_refused_when_empty(name, command, capsys):
    for words in ([f"--{name}="], [f"--{name}", ""], [f"--{name}", "  "]):
        assert command(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"command line: {name}='" in line
        assert "names no place" in line


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_that_is_a_path_knows_home(name, home):
    group, key = name.split(".")
    for config in (
        read_config([f"--{name}=~/x"], "test"),
        parse_config(f"{group}: {{{key}: '~/x'}}", "file"),
    ):
        assert getattr(getattr(config, group), key) == f"{home}/x"
    assert getattr(getattr(read_config([f"--{name}", "~"], "test"), group), key) == str(home)
    with pytest.raises(ConfigError, match=rf"file:1: {name}='' names no place"):
        parse_config(f"{group}: {{{key}: ''}}", "file")


def test_defaults_and_null_are_as_they_were():
    assert read_config([], "test") == Config()
    assert read_config(["--data.cache_dir=null"], "test").data.cache_dir is None
    check(Config(), ranks=1)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (sample.main, [""]),
        (sample.main, ["run", "--out", ""]),
        (export.main, ["", "out"]),
        (export.main, ["run", ""]),
        (evaluate.main, [""]),
        (evaluate.main, ["run", "--data", ""]),
        (evaluate.main, ["run", "--inception", ""]),
        (convert.main, ["dcgan-code", "", "out"]),
        (convert.main, ["dcgan-code", "in", ""]),
        (report, [""]),
        (report, ["run", "--out", ""]),
        (probe, ["digits", ""]),
        (probe, ["cifar10", "run", "--data", ""]),
        (probe, ["cifar10", "run", "--test", ""]),
        (explore, ["walk", ""]),
        (explore, ["walk", "run", "--data", ""]),
        (explore, ["judge", "run", "--labels", ""]),
        (explore, ["neighbours", "run", "--held-out", ""]),
        (kill.main, ["--dir", ""]),
        (kill.main, ["--config", ""]),
    ],
)
def test_every_command_refuses_an_empty_path(command, words, capsys):
    with pytest.raises(SystemExit) as end:
        command(words)
    assert end.value.code == 2
    assert "names no place" in capsys.readouterr().err.splitlines()[-1]


def test_a_build_and_a_sample_go_where_they_are_sent(home, tmp_path):
    build = ["build", "rooms", "~/set", "--images", "8", "--size", "16", "--workers", "1"]
    assert shards(build) == 0
    assert (home / "set" / "index.json").exists()
    assert shards(["cat", "~/set", "3", "--out", "~/3.png"]) == 0
    with Image.open(home / "3.png") as picture:
        assert picture.size == (16, 16)
    url = in_memory(str(home / "set"), "paths-of-cat")
    assert shards(["cat", url, "3", "--out", store.join(url, "3.png")]) == 0
    assert store.read_bytes(store.join(url, "3.png")) == (home / "3.png").read_bytes()


@pytest.mark.parametrize("folder", ["", "100%j", "a\\b", "a\nb"])
def test_the_launcher_refuses_a_folder_that_slurm_would_read_otherwise(folder):
    pytest.importorskip("submitit", reason="the extra slurm brings submitit")
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch" / "slurm.py"), "train", "--folder", folder, "--dry-run"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("error: argument --folder: ")
