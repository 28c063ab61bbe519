"""The base of all panels: a stack of styled lines that repaints only the lines that changed.

What a terminal is sent over SSH is what changed on the screen and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, wraps
from typing import Concatenate, ParamSpec, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from mmtui.tui import faults
from mmtui.tui.widgets import panels
from mmtui.tui.widgets.plot import Span

_TERMINAL: dict[str, Style] = {
    "": Style.null(),
    "title": Style(bold=True),
    "dim": Style(dim=True),
    "axis": Style(dim=True),
    "curve": Style(color="cyan"),
    "reference": Style(color="yellow"),
    "good": Style(color="green"),
    "bad": Style(color="red", bold=True),
    "warn": Style(color="yellow"),
    "bright_black": Style(dim=True),
    "cyan": Style(color="cyan"),
    "green": Style(color="green"),
    "red": Style(color="red"),
    "yellow": Style(color="yellow"),
    "magenta": Style(color="magenta"),
    "cursor": Style(reverse=True),
}
STYLES = dict(_TERMINAL)
Lines = Sequence[Sequence[Span]]
P = ParamSpec("P")
Panel = TypeVar("Panel", bound="LinesPanel")


def recolor(colors: Mapping[str, str]) -> None:
    """Other colours for some styles, the terminal's own for the rest; what is bold or reversed stays so."""
    STYLES.update(_TERMINAL)
    STYLES.update({name: _TERMINAL[name] + Style(color=color) for name, color in colors.items()})
    style_of.cache_clear()


@lru_cache(maxsize=4096)
def style_of(name: str) -> Style:
    """A style by name; ``#rrggbb on #rrggbb`` or one of both for pictures; none for a name that is not known."""
    return Style.parse(name) if name.startswith(("#", "on #")) else STYLES.get(name, STYLES[""])


def in_its_place(draw: Callable[Concatenate[Panel, P], None]) -> Callable[Concatenate[Panel, P], None]:
    """A method that draws a panel: what fails in it is told in the panel's place."""

    @wraps(draw)
    def drawn(panel: Panel, /, *arguments: P.args, **named: P.kwargs) -> None:
        try:
            draw(panel, *arguments, **named)
        except Exception as error:
            panel.show_trouble(panel.fault(error))

    return drawn


class LinesPanel(Widget):
    """Shows lines of spans below a title. Text from outside is drawn as it is: there is no markup here."""

    DEFAULT_CSS = "LinesPanel { height: 1fr; }"

    def __init__(self, title: str = "", *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.title_text = title
        self._lines: list[list[Span]] = []

    @property
    def body_height(self) -> int:
        """Lines there are below the title."""
        return max(self.size.height - 1, 0)

    def _title_line(self) -> list[Span]:
        """The title line, to its last dash."""
        dash = "-" if getattr(self.app, "ascii_only", False) else "─"
        text = f"{dash}{dash} {self.title_text} "
        rest = dash * max(self.size.width - cell_len(text), 0)
        return [(text, "title" if self.has_focus else ""), (rest, "dim")]

    def _send(self, row: int) -> None:
        """Have a line drawn; which of its cells are sent is found out later (``mmtui.tui.terminal.diff``)."""
        self.refresh(Region(0, row, self.size.width, 1))

    def show(self, lines: Lines, title: str | None = None) -> None:
        """Put new lines on the screen; those that are equal to the old ones are not sent again."""
        if title is not None and title != self.title_text:
            self.title_text = title
            self._send(0)
        fresh = [list(line) for line in lines]
        for number in range(max(len(fresh), len(self._lines))):
            old = self._lines[number] if number < len(self._lines) else []
            new = fresh[number] if number < len(fresh) else []
            if old != new:
                self._send(number + 1)
        self._lines = fresh

    @in_its_place
    def draw(self, made: Callable[[], tuple[Lines, str | None]]) -> None:
        """Show the lines and the title that a function gives."""
        self.show(*made())

    def show_trouble(self, text: str) -> None:
        """One sentence, instead of what cannot be shown."""
        self.show(panels.trouble(text, self.size.width, bool(getattr(self.app, "ascii_only", False))))

    def fault(self, error: Exception) -> str:
        """What to say of an exception."""
        return faults.told(getattr(self.app, "home", None), f"the panel {self.id or self.title_text}", error)

    async def _dispatch_message(self, message: Message) -> None:
        # Textual ends with the program a part whose handler fails.
        with faults.outlived(self, message):
            await super()._dispatch_message(message)

    def plain_text(self) -> str:
        """What is shown, as text."""
        return "\n".join("".join(text for text, _ in line) for line in self._lines)

    def render_line(self, y: int) -> Strip:
        try:
            return self._rendered(y)
        except Exception as error:  # here Textual would end the program
            return self._strip([(f"! {self.fault(error)}", "bad")], self.size.width)

    def _rendered(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            return self._strip(self._title_line(), width)
        line = self._lines[y - 1] if y - 1 < len(self._lines) else []
        return self._strip(line, width)

    def _strip(self, line: Sequence[Span], width: int) -> Strip:
        base, segments, used = self.rich_style, [], 0
        for text, style in line:
            room = width - used
            if room <= 0:
                break
            length = cell_len(text)
            if length > room:
                text, length = set_cell_size(text, room), room
            segments.append(Segment(text, base + style_of(style)))
            used += length
        return Strip(segments, used).adjust_cell_length(width, base)
