"""The filter language of command line and screen: parsed here, turned into SQL by the store. Pure.

    state = failed and created > 2d and (lr < 0.01 or tag ~ "ablation")
    max miou > 60 and loss@1000 < 0.5 and backbone in (vgg16, alexnet) and not reason is null

Names are columns of a run, keys of its recipe (``segment.optim.lr``, or just its end: ``lr`` is any key that ends so),
or metrics with what to take of them: ``max miou``, ``min loss``, ``last loss``, ``first loss``, ``loss@1000``. A
length of time stands for that long ago, so ``created > 2d`` means within the last two days. A comparison with what a
run does not have is false.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from engine.text import as_text
from mmtui.errors import UsageError

COLUMNS = (
    "id", "name", "recipe", "state", "reason", "stage", "seed", "priority", "group", "tag", "note", "progress",
    "attempt", "loss", "miou", "best", "best_step", "error", "created", "started", "ended", "took", "pinned",
)  # fmt: skip
PINNED = "pinned"
"""The tag that keeps a run on top of the list."""
MOMENTS = frozenset({"created", "started", "ended"})
TAKES = ("max", "min", "last", "first")
COMPARISONS = ("<=", ">=", "!=", "!~", "=", "<", ">", "~")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
MOST_DIGITS = 15
"""Of a step."""
_ABOUT = 60
"""Of a long filter, so much is repeated on either side of a mistake."""
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<regex>/(?:[^/\\]|\\.)*/)
      | (?P<op><=|>=|!=|!~|==|=|<|>|~)
      | (?P<punct>[(),])
      | (?P<word>[^\s()<>=!~,"'/]+)
    )""",
    re.VERBOSE,
)
_SCORE = re.compile(rf"(?:(?:{'|'.join(TAKES)})\s+)?([\"']?)(?:miou|mIoU)\1(?:@\d+)?")
_UNDECODED = re.compile("[\ud800-\udfff]+")
Value = str | float | bool


def storable(text: str) -> str:
    """The filter as text that can be stored and sent: what is no UTF-8 is spelled out, as in the names it looks for."""

    def doubled(found: re.Match[str]) -> str:
        return as_text(found[0]).replace("\\", "\\\\")  # within quotes and slashes a backslash has a meaning

    def token(found: re.Match[str]) -> str:
        return found[0] if found["word"] else _UNDECODED.sub(doubled, found[0])

    return as_text(_TOKEN.sub(token, text)) if _UNDECODED.search(text) else text


@dataclass(frozen=True)
class Operand:
    """What of a run is looked at.

    Attributes:
        name: a column, a key of the recipe, or a metric.
        take: "" for a column or key; max, min, last, first, or @STEP of a metric.
        column: where it stands in the text, from 1.
    """

    name: str
    take: str = ""
    column: int = 1

    @property
    def kind(self) -> str:
        """``metric``, ``column`` or ``key``."""
        if self.take:
            return "metric"
        return "column" if self.name in COLUMNS else "key"


@dataclass(frozen=True)
class Compare:
    """An operand against a value; ``op`` is one of COMPARISONS, or ``~/`` and ``!~/`` for regular expressions."""

    operand: Operand
    op: str
    value: Value


@dataclass(frozen=True)
class IsNull:
    """Whether a run lacks something."""

    operand: Operand
    negated: bool


@dataclass(frozen=True)
class In:
    """An operand against several values."""

    operand: Operand
    values: tuple[Value, ...]
    negated: bool


@dataclass(frozen=True)
class Not:
    """The opposite."""

    inner: Node


@dataclass(frozen=True)
class Both:
    """``and`` or ``or`` of several."""

    word: str
    parts: tuple[Node, ...]


Node = Compare | IsNull | In | Not | Both
EVERYTHING: Node = IsNull(Operand("id"), True)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    column: int


def parse(text: str, now: float) -> Node:
    """A filter.

    Args:
        now: Unix time that lengths of time are counted back from.

    Raises:
        UsageError: what is wrong, at which column, and what could stand there.
    """
    reader = _Reader(text, now)
    node = reader.either()
    reader.end()
    return node


def parse_operand(text: str) -> Operand:
    """What to sort by or to show: ``miou``, ``max miou``, ``segment.optim.lr``.

    Raises:
        UsageError: not one of these.
    """
    reader = _Reader(text, 0.0)
    found = reader.operand()
    reader.end()
    return found


def is_score(column: str) -> bool:
    """Whether a chosen column is a mean IoU of the run: ``miou``, ``max miou``, ``miou@300``."""
    return bool(_SCORE.fullmatch(column.strip()))


def duration_seconds(text: str) -> float | None:
    """Seconds of ``30m``, ``2h``, ``1.5d``; None for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    return float(match[1]) * _UNITS[match[2]] if match else None


def suggestion(name: str, known: list[str]) -> str:
    """ ", did you mean ...?" if something is near."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f", did you mean {close[0]}?" if close else ""


class _Reader:
    """Reads one filter from left to right."""

    def __init__(self, text: str, now: float) -> None:
        self.text, self.now = text, now
        self.tokens = list(_tokens(text))
        self.at = 0

    def either(self) -> Node:
        return self._joined("or", self.both)

    def both(self) -> Node:
        return self._joined("and", self.single)

    def _joined(self, word: str, read: Callable[[], Node]) -> Node:
        parts = [read()]
        while self._word(word):
            parts.append(read())
        return parts[0] if len(parts) == 1 else Both(word, tuple(parts))

    def single(self) -> Node:
        if self._word("not"):
            return Not(self.single())
        if self._punct("("):
            inner = self.either()
            if not self._punct(")"):
                self._fail("a closing )")
            return inner
        return self.comparison()

    def comparison(self) -> Node:
        operand = self.operand()
        if self._word("is"):
            negated = self._word("not")
            if not self._word("null"):
                self._fail("null or not null")
            return IsNull(operand, negated)
        negated = self._word("not")
        if self._word("in"):
            return In(operand, self._several(operand), negated)
        token = self._peek()
        if negated or token is None or token.kind != "op":
            self._fail("in" if negated else f"a comparison ({' '.join(COMPARISONS)}, in, is null)")
        self.at += 1
        op = "=" if token.text == "==" else token.text
        following = self._peek()
        if op in ("~", "!~") and following is not None and following.kind == "regex":
            self.at += 1
            return Compare(operand, f"{op}/", _checked_regex(following))
        if op in ("~", "!~") and following is not None and following.kind == "word":
            self.at += 1
            return Compare(operand, op, following.text)  # a part of a text, also where it could be a number
        return Compare(operand, op, self._value(operand))

    def operand(self) -> Operand:
        token = self._peek()
        if token is None or token.kind not in ("word", "string"):
            self._fail("a column, a key of the recipe, or a metric")
        self.at += 1
        name = _unquoted(token.text) if token.kind == "string" else token.text
        following = self._peek()
        if name in TAKES and token.kind == "word" and following is not None and following.kind in ("word", "string"):
            self.at += 1
            metric = _unquoted(following.text) if following.kind == "string" else following.text
            return Operand(metric, name, token.column)
        before, mark, step = name.partition("@")
        if mark and before and step.isdecimal():
            if len(step) > MOST_DIGITS:
                raise UsageError(f"filter, column {token.column}: {name}: no run has a step of {len(step):,} digits")
            return Operand(before, f"@{step}", token.column)
        return Operand({"tags": "tag", "mIoU": "miou"}.get(name, name), "", token.column)

    def _several(self, operand: Operand) -> tuple[Value, ...]:
        if not self._punct("("):
            self._fail("( before the values")
        values = [self._value(operand)]
        while self._punct(","):
            values.append(self._value(operand))
        if not self._punct(")"):
            self._fail("a comma or a closing )")
        return tuple(values)

    def _value(self, operand: Operand) -> Value:
        token = self._peek()
        if token is None or token.kind not in ("word", "string"):
            self._fail("a value")
        self.at += 1
        if token.kind == "string":
            return _unquoted(token.text)
        return _typed(token, operand, self.now)

    def _peek(self) -> _Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def _word(self, word: str) -> bool:
        token = self._peek()
        if token is None or token.kind != "word" or token.text.lower() != word:
            return False
        self.at += 1
        return True

    def _punct(self, text: str) -> bool:
        token = self._peek()
        if token is None or token.kind != "punct" or token.text != text:
            return False
        self.at += 1
        return True

    def end(self) -> None:
        """Nothing more may follow."""
        if self._peek() is not None:
            self._fail("and, or, or the end")

    def _fail(self, wanted: str) -> NoReturn:
        token = self._peek()
        column = token.column if token else len(self.text) + 1
        here = f"'{token.text}'" if token else "the end"
        raise UsageError(f"filter, column {column}: {here} where {wanted} is needed\n{_pointed(self.text, column)}")


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            column = at + len(text[at:]) - len(text[at:].lstrip()) + 1
            raise UsageError(
                f"filter, column {column}: '{text[column - 1]}' is not understood\n{_pointed(text, column)}"
            )
        yield _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup) + 1)
        at = match.end()


def _pointed(text: str, column: int) -> str:
    """What stands about a column, and a mark below it."""
    first = max(column - 1 - _ABOUT, 0) if len(text) > 2 * _ABOUT else 0
    part = text[first:] if len(text) <= first + 2 * _ABOUT else f"{text[first : first + 2 * _ABOUT]}..."
    return f"  {part}\n  {' ' * (column - 1 - first)}^"


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _checked_regex(token: _Token) -> str:
    pattern = token.text[1:-1].replace("\\/", "/")
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(f"filter, column {token.column}: {token.text} is no regular expression ({error})") from None
    return pattern


def _typed(token: _Token, operand: Operand, now: float) -> Value:
    """A bare word as number, truth value, moment or text, by what it is compared with."""
    text = token.text
    if operand.kind == "column" and operand.name in MOMENTS:
        seconds = duration_seconds(text)
        if seconds is not None:
            return now - seconds
        try:
            moment = datetime.fromisoformat(text)
            # Without a zone it is local time, as people write it.
            return moment.timestamp()
        except (ValueError, OverflowError):
            raise UsageError(
                f"filter, column {token.column}: '{text}' is no time: write 2d, 3h or 2026-01-31 (or with T12:00)"
            ) from None
    if operand.name == "took":
        seconds = duration_seconds(text)
        if seconds is not None:
            return seconds
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text
