"""YAML without its traps: no duplicate keys, no anchors, numbers and booleans as JSON writes them.

Plain YAML 1.1 reads ``no`` as false, ``1:30`` as 90, ``010`` as 8 and ``1e-3`` as text. Here only true and false are
booleans, integers are decimal, ``1e-3`` is a number, and everything else is text.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import yaml

from engine.json_types import Json

Location = tuple[str, int]
"""File (or the words of an override) and line; the first line is 1, 0 where there is none."""


class StrictYamlError(ValueError):
    """What is wrong with the text, as the rest of a sentence that starts with the file's name."""


class _AnchorError(yaml.composer.ComposerError):
    """An anchor or an alias: recipes share settings by ``base`` alone."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the rules above."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None):
            problem = f"the anchor '{event.anchor}' is not allowed; share settings between recipes with base:"
            raise _AnchorError(None, None, problem, event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes every text that either set of rules would read as something else."""


_RULES = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9][0-9_]*", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:[0-9][0-9_]*)?\.?[0-9]+(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+\.(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)

_Loader.yaml_implicit_resolvers = {}
_Dumper.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeDumper.yaml_implicit_resolvers.items()}
for _class in (_Loader, _Dumper):
    for _tag, _pattern, _first in _RULES:
        _starts = [*_first.replace("\0", ""), *([""] if "\0" in _first else [])]
        _class.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), _starts)


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node).replace("_", ""))


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


class _FastLoader(getattr(yaml, "CSafeLoader", _Loader)):  # type: ignore[misc]
    """The same rules by libyaml, in a tenth of the time, for text without ``_NOT_BY_LIBYAML``."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers
    yaml_constructors = _Loader.yaml_constructors


_NOT_BY_LIBYAML = frozenset("&*\t?")
"""Anchors are refused with their place; it accepts tabs and question marks where PyYAML, and so this file, does not."""


def _composed(text: str) -> tuple[yaml.SafeLoader, yaml.Node | None]:
    """The loader of a text, and its only document's node; what is wrong is told by the loader of one's own."""
    if not _NOT_BY_LIBYAML & set(text):
        with suppress(yaml.YAMLError, UnicodeError):
            fast = _FastLoader(text)
            return fast, fast.get_single_node()
    loader = _Loader(text)
    return loader, loader.get_single_node()


def load(text: str, file: str, *, numbers: bool = False) -> tuple[Json, dict[str, Location]]:
    """Plain data of one document, and where each dotted key stands.

    Args:
        numbers: whether whole numbers are keys at the top, too.

    Raises:
        StrictYamlError: not YAML, a duplicate key, an anchor, or a key that is no plain name.
    """
    lines: dict[str, Location] = {}
    try:
        loader, node = _composed(text)
        _collect_lines(node, "", file, lines, numbers)
        data = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, OverflowError, RecursionError) as error:
        raise StrictYamlError(_problem(error)) from None
    except StrictYamlError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # A tag that does not go with its value (!!int x), or a number of more digits than Python reads.
        raise StrictYamlError(f"not valid YAML: {(str(error).splitlines() or [type(error).__name__])[0]}") from None
    return data, lines


def load_value(text: str) -> Json:
    """One value, as on the right side of an override; what is no YAML is text."""
    if not text.strip():
        return ""
    try:
        return load(text, "", numbers=True)[0]
    except StrictYamlError:
        return text


def dump(data: Json) -> str:
    """YAML text that ``load`` and any YAML 1.1 reader read as the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def read_text(file: Path) -> str:
    """The text of a file.

    Raises:
        StrictYamlError: it cannot be read, or is no UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise StrictYamlError(f"byte {error.start} is no UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise StrictYamlError(f"cannot be read: {error.strerror or error}") from None


def _problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "not valid YAML: nested too deeply"
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", None) or "").replace("but found another", "found a second")
    problem = problem or (str(error).splitlines() or [type(error).__name__])[0]
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    refused = "" if isinstance(error, _AnchorError) else "not valid YAML: "
    return f"{where}{refused}{problem}"


_TEXT = "tag:yaml.org,2002:str"


def _is_name(node: yaml.ScalarNode, numbers: bool) -> bool:
    """A text; if ``numbers`` also a whole number, a value of masks, which becomes the text of its digits."""
    if numbers and node.tag == "tag:yaml.org,2002:int" and re.fullmatch("0|[1-9][0-9]{0,17}", node.value):
        node.tag = _TEXT
    return bool(node.tag == _TEXT)


def _collect_lines(
    node: yaml.Node | None, prefix: str, file: str, lines: dict[str, Location], numbers: bool = True
) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or not _is_name(key_node, numbers):
            raise StrictYamlError(f"line {line}: a key must be a plain name, such as segment; quote any other")
        key = f"{prefix}{key_node.value}"
        if key in lines:
            raise StrictYamlError(
                f"line {line}: '{key}' stands twice (first in line {lines[key][1]}); keep one of them"
            )
        lines[key] = (file, line)
        _collect_lines(value_node, f"{key}.", file, lines)
