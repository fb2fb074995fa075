"""Whatever bytes an index, a manifest or a config holds, only a documented error comes of it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcgan_dist.checkpoints.checkpoint import FORMAT, CheckpointError, parse_manifest
from dcgan_dist.config.reading import ConfigError
from dcgan_dist.config.rules import check
from dcgan_dist.config.settings import Config, dump, parse_config
from shards import ShardsError
from shards.dataset import index as indexes
from shards.dataset import json_fields
from shards.storage import store

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
MANIFEST = {
    "format": FORMAT,
    "step": 3,
    "files": {"step-00000003.g.safetensors": {"bytes": 1, "sha256": "0" * 64}},
    "scalers": {"g": {}, "d": {}},
}


def places(value: object, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside `value`."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, each in inner for place in places(each, (*at, key)))]


def changed(data: Any, way: tuple[Any, ...], value: object) -> Any:
    """A copy of `data` with another value at the end of `way`."""
    if not way:
        return value
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[way[0]] = changed(data[way[0]], way[1:], value)
    return copy


def spoiled(data: Any, *, deepest: int = 5000) -> st.SearchStrategy[bytes]:
    """Bytes near the JSON of `data`: other values in it, cut, flipped, or noise altogether."""
    text = json.dumps(data).encode()
    other = st.builds(
        lambda way, value: json.dumps(changed(data, way, value)).encode(),
        st.sampled_from(places(data)),
        VALUES,
    )
    cut = st.integers(0, len(text)).map(lambda at: text[:at])
    flip = st.builds(
        lambda at, bit: text[:at] + bytes([text[at] ^ (1 << bit)]) + text[at + 1 :],
        st.integers(0, len(text) - 1),
        st.integers(0, 7),
    )
    deep = st.integers(1, deepest).map(lambda n: b"[" * n)
    return other | cut | flip | deep | st.binary(max_size=64)


def read_config_text(data: bytes) -> None:
    check(parse_config(data.decode(errors="replace"), "x.yaml"), ranks=2)


def read_index(data: bytes) -> None:
    indexes.parse(json_fields.json_object(data, "index.json"), "index.json")


def read_manifest(data: bytes) -> None:
    parse_manifest(data, 3, where="step-00000003.json")


def index_of(rooms: str) -> Any:
    return json.loads(store.read_bytes(store.join(rooms, "index.json")))


# A few settings of each type: each is parsed by itself, in milliseconds.
FEW = {"optim": ("lr",), "train": ("steps", "precision", "compile"), "run": ("dir", "checkpoint_steps")}
WHOLE = yaml.safe_load(dump(Config()))
CONFIG = {group: {name: WHOLE[group][name] for name in names} for group, names in FEW.items()}
YAML = st.text(alphabet="abcdrtx:{}[]&*!|>-?'\"#%@\n \t0.e", max_size=60).map(str.encode) | spoiled(
    CONFIG, deepest=40
)


def fuzz(parse: Callable[[bytes], None], inputs: st.SearchStrategy[bytes], *, examples: int) -> None:
    """Raises whatever is not a documented error, or an error of many lines."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def every(data: bytes) -> None:
        told = ""
        try:
            parse(data)
        except (ShardsError, CheckpointError, ConfigError) as error:
            told = str(error)
        assert "\n" not in told

    every()


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("what", "examples"),
    [
        *(("index", 100), ("manifest", 300), ("config", 30)),
        pytest.param("index", 30_000, marks=LONG),
        pytest.param("manifest", 68_000, marks=LONG),
        pytest.param("config", 2_000, marks=LONG),
    ],
)
def test_any_bytes_give_a_documented_error_or_none(rooms16: str, what: str, examples: int) -> None:
    parsers = {
        "index": (read_index, lambda: spoiled(index_of(rooms16))),
        "manifest": (read_manifest, lambda: spoiled(MANIFEST)),
        "config": (read_config_text, lambda: YAML),
    }
    parse, inputs = parsers[what]
    fuzz(parse, inputs(), examples=examples)
