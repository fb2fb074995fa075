"""Settings from a YAML file and a command line into a dataclass of dataclasses, whichever they are.

Wrong ones are told with file and line, unknown ones with the nearest name; a command line wins wherever it
stands; numbers are decimal. jsonargparse writes the help.
"""

import argparse
import difflib
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import yaml

from dcgan_dist.config.named import find_config
from shards.errors import ShardsError, ToldError
from shards.printable import storable
from shards.storage import store
from shards.storage.paths import argument

T = TypeVar("T")
Place = Annotated[str, "place"]
"""A setting that is a path or URL: `~` is filled in, and one that names no place is refused."""

WORDS = {float: "a number", int: "a whole number", str: "text", bool: "true or false", type(None): "null"}


class ConfigError(ToldError):
    """A setting is wrong; the message is one line that names it, its value, the rule and the way out."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split("\n")))


@dataclass(frozen=True)
class Given:
    """One setting as somebody wrote it: `text` None is null, `where` a file and line or the command line."""

    name: str
    text: str | None
    where: str


def read(kind: type[T], argv: Sequence[str], *, prog: str) -> T:
    """The settings of a command line. `--help` prints them all and exits. Raises ConfigError."""
    if {"-h", "--help"} & set(argv):
        print(_help(kind, prog))
        raise SystemExit(0)
    for word in argv:
        if storable(word) != word:
            raise ConfigError(f"{word} is not UTF-8, which settings are written in; rename what it names")
    path, given = split_command_line(kind, argv)
    return _build(kind, [*(_yaml_settings(kind, _read_file(path), path) if path else ()), *given])


def parse(kind: type[T], text: str, *, where: str) -> T:
    """The settings of a YAML text that was read from `where`. Raises ConfigError."""
    return _build(kind, list(_yaml_settings(kind, text, where)))


def parse_some(kind: type[T], text: str, *, where: str, needed: Collection[str]) -> tuple[T, frozenset[str]]:
    """The settings of a YAML text as far as this version knows them, and the names of those.

    Raises ConfigError for text that is no YAML mapping, and for a wrong setting in a group of `needed`.
    """
    known: list[Given] = []
    for group, body in _yaml_groups(text, where):
        strict = group.value in needed
        for part in [body] if strict else _one_by_one(body):
            try:
                found = list(_group_settings(kind, group, part, where))
                for setting in found:
                    _typed(kind, setting)
                known += found
            except ConfigError:
                if strict:
                    raise
    return _build(kind, known), frozenset(setting.name for setting in known)


def plain(text: str, *, where: str) -> dict[str, dict[str, str]]:
    """The settings of a YAML text as they are written, by group and name, whatever they are.

    Raises ConfigError.
    """
    return {
        group.value: {
            key.value: value.value
            for part in _one_by_one(body)
            for key, value in part.value
            if isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)
        }
        for group, body in _yaml_groups(text, where)
    }


def _build(kind: type[T], given: list[Given]) -> T:
    values: dict[str, dict[str, Any]] = {group: {} for group in get_type_hints(kind)}
    for setting in given:
        group, key = setting.name.split(".")
        values[group][key] = _typed(kind, setting)
    return kind(**{group: part(**values[group]) for group, part in get_type_hints(kind).items()})


@cache
def types(kind: type) -> dict[str, Any]:
    """Dotted name -> type of every setting, in order of declaration."""
    groups = get_type_hints(kind)
    return {
        f"{group}.{name}": hint
        for group, part in groups.items()
        for name, hint in get_type_hints(part).items()
    }


@cache
def _places(kind: type) -> frozenset[str]:
    """Dotted names of the settings that are paths or URLs."""
    return frozenset(
        f"{group}.{name}"
        for group, part in get_type_hints(kind).items()
        for name, hint in get_type_hints(part, include_extras=True).items()
        if Place in (hint, *get_args(hint))
    )


def _help(kind: type, prog: str) -> str:
    """Every setting with its type and default, its docstring as help."""
    # Here and not at the top, because they take a second that a check need not wait.
    from docstring_parser import parse_from_object
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog=prog, add_help=False)
    parser.usage = f"{prog} [CONFIG.yaml] [--SETTING VALUE ...]"
    for group, part in get_type_hints(kind).items():
        docs = {p.arg_name: p.description for p in parse_from_object(part).params}
        section = parser.add_argument_group(f"{group}: {(part.__doc__ or '').strip().rstrip('.')}")
        for item in fields(part):
            name = f"{group}.{item.name}"
            section.add_argument(
                f"--{name}", type=types(kind)[name], default=item.default, help=docs[item.name]
            )
    return str(parser.format_help())


def split_command_line(kind: type, argv: Sequence[str]) -> tuple[str | None, list[Given]]:
    """The YAML file named on a command line, and the settings given beside it. Raises ConfigError."""
    paths: list[str] = []
    given: list[Given] = []
    words = iter(argv)
    for word in words:
        if not word.startswith("--"):
            paths.append(word)
            continue
        name, equals, text = word[2:].partition("=")
        if name != "config" and name not in types(kind):
            raise ConfigError(_unknown(kind, name, "command line"))
        if not equals:
            text = next(words, "--")
            if text.startswith("--"):
                raise ConfigError(f"command line: --{name} needs a value")
        if name == "config":
            paths.append(text)
        else:
            given.append(Given(name, None if text == "null" else text, "command line"))
    if len(paths) > 1:
        raise ConfigError(
            f"two config files, {paths[0]} and {paths[1]}: give one, and settings as --name value"
        )
    return (paths[0] if paths else None), given


def _read_file(path: str) -> str:
    try:
        if "://" in path:
            return store.read_bytes(argument(path)).decode()
        return find_config(argument(path)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, argparse.ArgumentTypeError, ShardsError) as error:
        raise ConfigError(f"{path}: cannot be read as a config file: {error}") from None


def _compose(text: str, path: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deep; settings are groups of name: value") from None


def _yaml_settings(kind: type, text: str, path: str) -> Iterator[Given]:
    """Every setting of a YAML text, with file and line."""
    for group, body in _yaml_groups(text, path):
        yield from _group_settings(kind, group, body, path)


def _yaml_groups(text: str, path: str) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """Nodes as they are written: aliases are not laid out, so that the text's length bounds the work."""
    root = _compose(text, path)
    return _yaml_pairs(root, path, "the file") if root else []


def _one_by_one(body: yaml.Node) -> list[yaml.MappingNode]:
    """A mapping as mappings of one setting each; nothing of another node."""
    pairs = body.value if isinstance(body, yaml.MappingNode) else []
    return [yaml.MappingNode(body.tag, [pair], body.start_mark, body.end_mark) for pair in pairs]


def _group_settings(kind: type, group: yaml.ScalarNode, body: yaml.Node, path: str) -> Iterator[Given]:
    if group.value not in get_type_hints(kind):
        raise ConfigError(_unknown(kind, group.value, f"{path}:{group.start_mark.line + 1}"))
    for key, value in [] if _is_null(body) else _yaml_pairs(body, path, group.value):
        name, where = f"{group.value}.{key.value}", f"{path}:{key.start_mark.line + 1}"
        if name not in types(kind):
            raise ConfigError(_unknown(kind, name, where))
        if not isinstance(value, yaml.ScalarNode):
            raise ConfigError(f"{where}: {name} takes one value, not a list or a mapping")
        yield Given(name, None if _is_null(value) else value.value, where)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")


def _yaml_pairs(node: yaml.Node, path: str, what: str) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    where = f"{path}:{node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{where}: {what} must be a mapping like 'name: value'")
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"{path}:{key.start_mark.line + 1}: a setting's name must be one word")
        if key.value in seen:
            raise ConfigError(f"{path}:{key.start_mark.line + 1}: {key.value} is set twice in {what}")
        seen.add(key.value)
    return list(node.value)


def _typed(kind: type, setting: Given) -> Any:
    choices, text = _choices(types(kind)[setting.name]), setting.text
    shown = "null" if text is None else repr(text)
    told = f"{setting.where}: {setting.name}={shown}"
    if text is None and type(None) in choices:
        return None
    try:
        if text is not None and setting.name in _places(kind):
            return argument(text)
        if text is not None:
            return _convert(text, choices)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"{setting.where}: {setting.name}={error}") from None
    except OverflowError:
        raise ConfigError(f"{told} is too large") from None
    except ValueError:
        pass
    raise ConfigError(f"{told} is not {' or '.join(WORDS.get(choice, str(choice)) for choice in choices)}")


def _choices(hint: Any) -> list[Any]:
    """The types that a setting may have, and the words that it may be."""
    inner = get_args(hint)
    return [choice for each in inner for choice in _choices(each)] if inner else [hint]


def _convert(text: str, choices: list[Any]) -> Any:
    """The value that `text` is, decimal and nothing else. Raises ValueError or OverflowError."""
    if text in choices:
        return text
    if bool in choices and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if int in choices and re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", text):
        if len(text) > 19 or abs(int(text)) >= 2**63:
            raise OverflowError
        return int(text)
    if float in choices and re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text):
        if math.isinf(float(text)):
            raise OverflowError
        return float(text)
    if str in choices:
        return text
    raise ValueError


def _unknown(kind: type, name: str, where: str) -> str:
    names = list(types(kind))
    last = {known.split(".")[1]: known for known in names}
    near = difflib.get_close_matches(name, names, 1, 0.5)
    by_last = difflib.get_close_matches(name.split(".")[-1], list(last), 1, 0.8)
    guess = near[0] if near and not by_last else last[by_last[0]] if by_last else None
    hint = f"did you mean {guess}?" if guess else "see --help for all settings"
    return f"{where}: unknown setting {name}; {hint}"
