"""Settings: one YAML file plus the command line, and a wrong one is one line that names the way out."""

import subprocess
import sys
from pathlib import Path

import pytest

from dcgan_dist.config.reading import ConfigError, types
from dcgan_dist.config.rules import check, check_data
from dcgan_dist.config.settings import Config, dump, parse_config, read_config
from dcgan_dist.run_folder.same_run import differences
from shards.__main__ import main as shards_main

CONFIGS = sorted((Path(__file__).parent.parent.parent / "configs").rglob("*.yaml"))


def read(tmp_path: Path, text: str, *words: str) -> Config:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return read_config([str(path), *words], "test")


def test_the_command_line_wins_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("optim: {lr: 1e-3}\n")
    for words in (["--optim.lr", "5e-5", str(path)], [str(path), "--optim.lr=5e-5"]):
        assert read_config(words, "test").optim.lr == 5e-5
    assert read_config(["--optim.lr", "5e-5", "--config", str(path)], "test").optim.lr == 5e-5


def test_exponents_are_numbers_and_urls_stay_text(tmp_path: Path) -> None:
    config = read(tmp_path, "optim:\n  lr: 2e-4\ndata:\n  url: s3://bucket/x\nrun:\n  dir: 2e-4\n")
    assert (config.optim.lr, config.data.url, config.run.dir) == (2e-4, "s3://bucket/x", "2e-4")


def test_null_and_numbers_fill_optional_settings(tmp_path: Path) -> None:
    assert read(tmp_path, "train:\n  steps: 7\n").train.steps == 7
    assert read(tmp_path, "train:\n  steps: 7\n", "--train.steps", "null").train.steps is None
    assert read(tmp_path, "train:\n  steps: null\n  ema_decay: 0.999\n").train.ema_decay == 0.999


def test_text_is_taken_as_it_stands() -> None:
    words = ["--data.cache_dir=null.", "--run.dir", "0x10", "--data.url=[1, 2]", "--train.compile=TRUE"]
    config = read_config(words, "test")
    assert (config.data.cache_dir, config.run.dir, config.data.url) == ("null.", "0x10", "[1, 2]")
    assert config.train.compile is True


def test_an_empty_file_or_group_means_the_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, "") == read(tmp_path, "# nothing\noptim:\n") == Config()


def test_what_is_dumped_is_read_back() -> None:
    config = read_config(["--optim.lr", "3e-5", "--train.steps", "9", "--data.url", "memory://x y"], "test")
    assert parse_config(dump(config), "dump") == config


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("optim:\n  lrr: 3\n", "x.yaml:2: unknown setting optim.lrr; did you mean optim.lr?"),
        ("optim:\n\n  lr: fast\n", "x.yaml:3: optim.lr='fast' is not a number"),
        ("train:\n  steps: 2.5\n", "x.yaml:2: train.steps='2.5' is not a whole number or null"),
        ("train:\n  update_rule: twice\n", "train.update_rule='twice' is not alternate or both"),
        ("optimizer:\n  lr: 1\n", "x.yaml:1: unknown setting optimizer; "),
        ("lr: 1\n", "x.yaml:1: unknown setting lr; did you mean optim.lr?"),
        ("optim: 3\n", "x.yaml:1: optim must be a mapping"),
        ("- 3\n", "x.yaml:1: the file must be a mapping"),
        ("optim:\n  lr: [1, 2]\n", "x.yaml:2: optim.lr takes one value"),
        ("optim:\n  lr: 1\n  lr: 2\n", "x.yaml:3: lr is set twice in optim"),
        ("data:\n  url: null\n", "x.yaml:2: data.url=null is not text"),
        ("optim:\n  lr: 1\n lr: [\n", "x.yaml:3: not YAML"),
        ("? [1]\n: 2\n", "x.yaml:1: a setting's name must be one word"),
    ],
)
def test_a_wrong_line_is_named_with_file_and_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--optim.lrr", "3"], "command line: unknown setting optim.lrr; did you mean optim.lr?"),
        (["--batch_images", "3"], "did you mean data.batch_images?"),
        (["--optim.lr", "x"], "command line: optim.lr='x' is not a number"),
        (["--optim.lr", "nan"], "optim.lr='nan' is not a number"),
        (["--optim.lr", "inf"], "optim.lr='inf' is not a number"),
        (["--optim.lr", "1e400"], "optim.lr='1e400' is too large"),
        (["--optim.lr", "1_0"], "optim.lr='1_0' is not a number"),
        (["--optim.lr", "1:30"], "optim.lr='1:30' is not a number"),
        (["--train.seed", "0x10"], "train.seed='0x10' is not a whole number"),
        (["--train.seed", "010"], "train.seed='010' is not a whole number"),
        (["--train.seed", "1e3"], "train.seed='1e3' is not a whole number"),
        (["--train.seed", "9" * 5000], " is too large"),
        (["--train.steps", "~"], "train.steps='~' is not a whole number or null"),
        (["--train.compile", "1"], "train.compile='1' is not true or false"),
        (["--run.checkpoint_best", "best"], "run.checkpoint_best='best' is not swd or fid or kid or null"),
        (["--optim.lr"], "--optim.lr needs a value"),
        (["--optim.lr", "--train.steps", "3"], "--optim.lr needs a value"),
        (["a.yaml", "b.yaml"], "two config files, a.yaml and b.yaml"),
        (["nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_named(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_config(words, "test")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "ranks", "told"),
    [
        (
            ["--data.batch_images", "130"],
            4,
            "over 4 ranks; nearest that do: 128 and 132 images, or 2 and 5 ranks",
        ),
        ([], 0, "ranks=0 must be at least 1"),
        (["--run.sample_images", "1"], 1, "run.sample_images=1 must be at least 2"),
        (["--data.batch_images", "2"], 4, "nearest that do: 4 and 8 images, or 2 ranks"),
        (["--model.net", "dcgan65"], 1, "model.net: 'dcgan65' is neither a preset"),
        (["--optim.beta1", "1"], 1, "optim.beta1=1.0 must be at least 0 and less than 1"),
        (["--run.log_steps", "0"], 1, "run.log_steps=0 must be at least 1"),
        (["--optim.eps", "-1"], 1, "optim.eps=-1.0 must be at least 0"),
        (["--model.norm_eps", "0"], 1, "model.norm_eps=0.0 must be more than 0; the default is 1e-8"),
        (["--optim.lr", "1e39"], 1, r"optim.lr=1e\+39 must be at most 1e\+30"),
        (["--train.epochs", "1e308"], 1, r"train.epochs=1e\+308 must be at most"),
        (["--train.timeout_seconds", "1e300"], 1, "train.timeout_seconds=.* must be at most"),
        (["--data.batch_images", f"{10**18 + 1}"], 2, "data.batch_images=.* must be at most"),
        (["--run.sample_images", f"{10**12}"], 1, "run.sample_images=.* must be at most 4096"),
        (
            ["--model.net", f"z9 k5 g {10**11}@4 8@8 3@16 d 8@8 16@4"],
            1,
            "model.net: .* weights; at most",
        ),
        (["--model.net", f"z9 k5 g {'9' * 5000}@4 3@8 d 8@4"], 1, "model.net: "),
    ],
)
def test_a_rule_between_settings_is_one_line(words: list[str], ranks: int, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check(read_config(words, "test"), ranks=ranks)


def test_help_documents_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_config(["--help"], "test")
    told = capsys.readouterr().out
    for name in types(Config):
        assert f"--{name} " in told
    assert "summed over all ranks" in told
    assert "(type: None" not in told


def test_only_what_may_change_within_a_run_does() -> None:
    before = Config()
    assert differences(before, read_config(["--train.epochs", "9", "--run.dir", "x"], "test")) == []
    assert differences(before, read_config(["--optim.lr", "9"], "test")) == ["optim.lr"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.name))
def test_every_config_is_valid_and_says_how_it_is_run(path: Path) -> None:
    check(read_config([str(path)], "test"), ranks=1)
    header = path.read_text().partition("\n\n")[0].lower()
    for word in ("command:", "hardware:", "time", "expect:"):
        assert word in header, f"the header of {path.name} lacks {word!r}"


def test_a_check_needs_no_torch() -> None:
    program = (
        "import sys; from dcgan_dist.config.__main__ import main; code = main(sys.argv[1:]); "
        "assert not {'torch', 'jsonargparse'} & set(sys.modules); raise SystemExit(code)"
    )
    command = [sys.executable, "-c", program, str(CONFIGS[0]), "--ranks", "32", "--skip-data"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "valid for 32 ranks" in done.stdout


def test_a_missing_dataset_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    """Which is followed here: the run is sound after it."""
    out = str(tmp_path / "rooms")
    settings = [f"--data.url={out}", "--model.net=tiny16", "--data.batch_images=16"]
    config = read_config(settings, "test")
    with pytest.raises(ConfigError) as told:
        check_data(config)
    words = str(told.value).partition("python -m shards ")[2].split()
    assert words[-4:] == ["--images", "12000", "--size", "16"]
    words[words.index("12000")] = "64"
    assert shards_main(words) == 0
    assert check_data(config).samples == 64
