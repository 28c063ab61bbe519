"""Pictures in pixels in a real pseudo-terminal: what is sent is decoded here, by code of its own, and compared."""

from __future__ import annotations

import io
import os
import re
import signal
import sqlite3
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmtui import settings
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.services.news import LOOKED_AT
from mmtui.store.quick import put_setting
from mmtui.tui.app import MmtuiApp
from mmtui.tui.screens.dialogs import KeysDialog
from mmtui.tui.terminal.graphics import Graphics, Placed, png, sixel
from tests.tui.seed_store import seed_store
from tests.tui.test_pages import page, ready
from tests.tui.test_terminal import Terminal
from tests.waiting import until_async

APC = re.compile(rb"\x1b_G([^;\x1b]*)(?:;([^\x1b]*))?\x1b\\")
DCS = re.compile(rb"\x1b7\x1b\[(\d+);(\d+)H\x1bP([0-9;]*)q(.*?)\x1b\\", re.DOTALL)
PLACE = re.compile(rb"\x1b7\x1b\[(\d+);(\d+)H$")
GRAPHICS = re.compile(rb"\x1b_.*?\x1b\\|\x1bP.*?\x1b\\", re.DOTALL)
OPEN = re.compile(rb"\x1b_[^\x1b]*\x1b?$|\x1bP[^\x1b]*\x1b?$|\x1b$")
CELL = (10, 20)
RIGHT, UNKNOWN = (208, 208, 208), (240, 240, 240)
Start = Callable[..., "PixelTerminal"]


class PixelTerminal(Terminal):
    """A terminal that hands the protocols' sequences to the test and everything else to pyte."""

    def __init__(self, home: Home, columns: int, rows: int, **environment: str) -> None:
        super().__init__(home, columns, rows, **environment)
        self.stream, self.text_stream, self.rest = self, self.stream, b""

    def feed(self, data: bytes) -> None:
        whole = self.rest + data
        unfinished = OPEN.search(whole)
        whole, self.rest = (whole[: unfinished.start()], whole[unfinished.start() :]) if unfinished else (whole, b"")
        self.text_stream.feed(GRAPHICS.sub(b"", whole))

    def kitty(self) -> Kitty:
        return Kitty(self.received)

    def to_page_before_predictions(self) -> None:
        self.wait_for("any key closes")
        self.child.send(b"\x1b")
        self.until(lambda: "any key closes" not in self.text(), "the news closed")
        for keys, words in (("jj", "loss 0."), ("2", "[charts]"), ("\t", "[graph]"), ("\t", "[classes]")):
            self.child.send(keys.encode())
            self.wait_for(words)

    def to_predictions(self) -> None:
        self.to_page_before_predictions()
        self.child.send(b"\t")
        self.wait_for("val_0000")


class Kitty:
    """What a terminal with kitty's protocol has after these bytes: images by number, and where they are shown."""

    def __init__(self, data: bytes) -> None:
        self.images: dict[int, bytes] = {}
        self.shown: dict[int, tuple[int, int, int, int]] = {}
        self.sent: list[int] = []
        self.longest = 0
        open_id = 0
        for found in APC.finditer(data):
            keys = dict(part.split("=") for part in found[1].decode().split(","))
            body = found[2] or b""
            assert keys["q"] == "2", "answers would be taken for keys"
            if keys.get("a") == "t" or "a" not in keys:
                open_id = int(keys.get("i", open_id))
                if "a" in keys:
                    assert keys["f"] == "100"
                    self.images[open_id] = b""
                    self.sent.append(open_id)
                self.images[open_id] += body
                self.longest = max(self.longest, len(body))
            elif keys["a"] == "p":
                at = PLACE.search(data[: found.start()])
                assert at is not None and keys["C"] == "1"
                y, x = int(at[1]) - 1, int(at[2]) - 1
                assert self.images[int(keys["i"])], "shown before it was sent"
                self.shown[int(keys["i"])] = (x, y, int(keys["c"]), int(keys["r"]))
            elif keys["a"] == "d":
                self.shown.pop(int(keys["i"]), None)
                if keys["d"] == "I":
                    self.images.pop(int(keys["i"]))

    def picture(self, number: int) -> Image.Image:
        return Image.open(io.BytesIO(b64decode(self.images[number], validate=True)))

    def by_place(self) -> list[Image.Image]:
        """What is shown, in the order of reading."""
        return [self.picture(n) for n, _ in sorted(self.shown.items(), key=lambda item: (item[1][1], item[1][0]))]


def unsixel(body: bytes) -> np.ndarray:
    """Percent of red, green, blue of every pixel."""
    raster = re.match(rb'"1;1;(\d+);(\d+)', body)
    assert raster is not None
    width, height = int(raster[1]), int(raster[2])
    pixels = np.full((height + 6, width, 3), -1)
    colors: dict[int, tuple[int, ...]] = {}
    x = y = color = 0
    for token in re.finditer(
        rb"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)([?-~])|([?-~])|(\$)|(-)", body[raster.end() :]
    ):
        if token[1]:
            colors[int(token[1])] = tuple(int(token[i]) for i in (2, 3, 4))
        elif token[5]:
            color = int(token[5])
        elif token[9]:
            x = 0
        elif token[10]:
            x, y = 0, y + 6
        else:
            count, bits = int(token[6] or 1), (token[7] or token[8])[0] - 63
            for bit in range(6):
                if bits >> bit & 1:
                    pixels[y + bit, x : x + count] = colors[color]
            x += count
    return pixels[:height]


def sampled(array: np.ndarray, pixels: np.ndarray) -> bool:
    """Whether every pixel is the one of the array below its middle; one of two where the middle is on their border."""

    def indices(new: int, old: int, down: int) -> np.ndarray:
        return ((2 * np.arange(new) + 1) * old - down) // (2 * new)

    height, width = pixels.shape[:2]
    candidates = [
        array[indices(height, array.shape[0], up)][:, indices(width, array.shape[1], left)]
        for up in (0, 1)
        for left in (0, 1)
    ]
    return bool(np.any([(one == pixels).all(axis=2) for one in candidates], axis=0).all())


def expected(home: Home) -> dict[str, np.ndarray]:
    """The colours of what is to be seen of the first image of run 4, from the files alone."""
    event = [e.record.values for e in runs.events(home, "4", "image") if e.record.values["index"] == 0][-1]
    root = home.run("4").root
    opened = {kind: Image.open(root / event[kind]) for kind in ("image", "truth", "prediction")}
    truth, prediction = np.asarray(opened["truth"]), np.asarray(opened["prediction"])
    found = {kind: np.asarray(picture.convert("RGB")) for kind, picture in opened.items()}
    wrong = found["prediction"].copy()
    wrong[truth == prediction] = RIGHT
    wrong[truth == 255] = UNKNOWN
    return {**found, "errors": wrong}


@pytest.fixture
def start(home: Home) -> Iterator[Start]:
    seed_store(home, time.time())
    started: list[PixelTerminal] = []

    def begin(way: str, columns: int = 120, rows: int = 40, **environment: str) -> PixelTerminal:
        (home.root / "config.toml").write_text(f'pictures = "{way}"\n')
        environment = {"COLORTERM": "truecolor", "TMUX": "", "STY": "", **environment}
        started.append(PixelTerminal(home, columns, rows, **environment))
        return started[-1]

    yield begin
    for terminal in started:
        terminal.child.close()


def test_kitty_pictures_are_those_of_the_files_and_leave_with_the_page(home: Home, start: Start) -> None:
    terminal = start("kitty")
    terminal.to_predictions()
    terminal.until(lambda: len(terminal.kitty().shown) == 4, "four pictures")
    there, wanted = terminal.kitty(), expected(home)
    assert there.longest <= 4096
    for picture, kind in zip(there.by_place(), ("image", "truth", "prediction", "errors"), strict=True):
        pixels = np.asarray(picture.convert("RGB"))
        times = pixels.shape[0] // wanted[kind].shape[0]
        assert np.array_equal(pixels, wanted[kind].repeat(times, 0).repeat(times, 1)), kind
        assert picture.mode == ("RGB" if kind == "image" else "P")
    for x, y, columns, rows in there.shown.values():
        assert all(not line[x : x + columns].strip() for line in terminal.screen.display[y : y + rows])
        assert abs(columns / (2 * rows) - 96 / 64) < 0.1, "proportions"
    terminal.child.send(b"\t")
    terminal.until(lambda: not terminal.kitty().shown, "no picture")
    terminal.child.send(b"\x1b[Z")
    terminal.until(lambda: len(terminal.kitty().shown) == 4, "four pictures")
    assert terminal.kitty().sent == there.sent, "sent once, shown twice"
    terminal.child.send(b"q")
    terminal.until(lambda: not terminal.kitty().shown, "no picture")
    terminal.leave(b"q")
    assert not terminal.kitty().images, "nothing is left in the terminal's memory"
    assert terminal.received.rindex(b"a=d,d=I") < terminal.received.rindex(b"\x1b[?1049l")


def test_kitty_pictures_are_not_sent_again_with_every_look_and_follow_a_resize(home: Home, start: Start) -> None:
    terminal = start("kitty")
    terminal.to_predictions()
    terminal.until(lambda: len(terminal.kitty().shown) == 4, "four pictures")
    sent = terminal.kitty().sent
    for _ in range(3):
        with sqlite3.connect(home.database) as connection:
            connection.execute("UPDATE runs SET priority = priority + 1 WHERE id = 6")
        connection.close()
        terminal.read(1.3)  # a look at the store comes every second: it is the looks that must send nothing
    assert terminal.kitty().sent == sent
    before = terminal.kitty().shown
    terminal.screen.resize(30, 90)
    terminal.child.setwinsize(30, 90)
    terminal.until(
        lambda: len(terminal.kitty().shown) == 4 and not set(terminal.kitty().shown) & set(before), "four new pictures"
    )
    assert all(x + columns <= 90 and y + rows <= 29 for x, y, columns, rows in terminal.kitty().shown.values())


def test_kitty_one_picture_alone_is_larger_and_p_goes_back_to_blocks(start: Start) -> None:
    terminal = start("kitty")
    terminal.to_predictions()
    terminal.until(lambda: len(terminal.kitty().shown) == 4, "four pictures")
    small = max(columns for _, _, columns, _ in terminal.kitty().shown.values())
    terminal.child.send(b"\r")
    terminal.until(lambda: len(terminal.kitty().shown) == 1, "one picture")
    ((_, _, columns, _),) = terminal.kitty().shown.values()
    assert columns > 1.3 * small
    terminal.child.send(b"pp")
    terminal.until(lambda: "▀" in terminal.text(), "blocks")
    assert not terminal.kitty().images


@pytest.mark.parametrize("way", ["kitty", "sixel"])
def test_pictures_are_taken_away_before_a_polite_kill(start: Start, way: str) -> None:
    terminal = start(way)
    terminal.to_predictions()
    drawn = lambda: len(terminal.kitty().shown) + len(DCS.findall(terminal.received))  # noqa: E731
    terminal.until(lambda: drawn() == 4, "four pictures")
    os.kill(terminal.child.pid, signal.SIGTERM)
    terminal.leave()
    assert not terminal.kitty().images
    assert b"\x1b[?1049l" in terminal.received


def test_kitty_pictures_are_taken_away_while_suspended(start: Start) -> None:
    terminal = start("kitty")
    terminal.to_predictions()
    terminal.until(lambda: len(terminal.kitty().shown) == 4, "four pictures")
    os.kill(terminal.child.pid, signal.SIGTSTP)
    terminal.until(
        lambda: not terminal.kitty().images and b"\x1b[?1049l" in terminal.received, "a terminal that is left"
    )
    os.kill(terminal.child.pid, signal.SIGCONT)
    terminal.until(lambda: len(terminal.kitty().shown) == 4, "four pictures")


async def test_dialog_over_the_page_takes_pictures_away_until_it_is_closed(home: Home) -> None:
    seed_store(home, time.time())
    put_setting(home, LOOKED_AT, repr(time.time()))  # no news
    app = MmtuiApp(home, select="4", pictures="kitty")
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(app, pilot)
        await pilot.press("2", "tab", "tab", "tab")
        await until_async(lambda: len(app.graphics.boxes) == 4)
        app.push_screen(KeysDialog("run"))
        await until_async(lambda: not app.graphics.boxes)
        await pilot.press("escape")
        await until_async(lambda: len(app.graphics.boxes) == 4)
        await pilot.press("ctrl+l")
        await until_async(lambda: len(app.graphics.boxes) == 4)
        app.next_way()
        app.place_pictures()
        assert app.graphics.way == "sixel" and not app.graphics.boxes, "what was encoded for kitty is no sixel"
        page(app).redraw()
        await until_async(lambda: len(app.graphics.boxes) == 4)


def test_sixel_pictures_are_those_of_the_files_and_are_painted_over(home: Home, start: Start) -> None:
    terminal = start("sixel")
    terminal.to_predictions()
    terminal.until(lambda: len(DCS.findall(terminal.received)) == 4, "four pictures")
    terminal.settle()
    found, wanted = DCS.findall(terminal.received), expected(home)
    assert len(found) == 4, "drawn once"
    boxes = []
    in_order = sorted(found, key=lambda one: (int(one[0]), int(one[1])))
    for (y, x, _, body), kind in zip(in_order, ("image", "truth", "prediction", "errors"), strict=True):
        pixels = unsixel(body)
        height, width = pixels.shape[:2]
        assert height % CELL[1] == width % CELL[0] == 0
        boxes.append((int(x) - 1, int(y) - 1, width // CELL[0], height // CELL[1]))
        if kind != "image":
            assert sampled(np.round(100 * wanted[kind].astype(float) / 255), pixels), kind
        else:
            assert pixels.min() >= 0, "every pixel is drawn"
    for x, y, columns, rows in boxes:
        assert all(not line[x : x + columns].strip() for line in terminal.screen.display[y : y + rows])
        for row in range(y, y + rows):  # where the picture is, as far as a terminal of text can tell
            for column in range(x, x + columns):
                terminal.screen.buffer[row][column] = terminal.screen.buffer[row][column]._replace(data="S")
    terminal.child.send(b"q")
    terminal.wait_for("── devices")
    terminal.until(lambda: "SS" not in terminal.text(), "a screen that hides where pictures were")


@pytest.mark.parametrize(
    ("name", "environment"), [("tmux", {"TMUX": "/tmp/tmux-0/default,1,0"}), ("screen", {"STY": "1.a"})]
)
def test_inside_a_multiplexer_there_are_only_blocks_and_it_is_said(
    start: Start, name: str, environment: dict[str, str]
) -> None:
    terminal = start("kitty", **environment)
    terminal.to_predictions()
    terminal.wait_for(f"pictures are blocks: {name} does not keep kitty pictures in their place")
    terminal.child.send(b"p")
    terminal.settle(1.5)
    assert "▀" in terminal.text()
    assert b"\x1b_G" not in terminal.received and b"\x1bP" not in terminal.received


def test_slow_terminal_gets_blocks_again_and_is_told(start: Start) -> None:
    terminal = start("kitty")
    terminal.to_page_before_predictions()
    terminal.settle()
    terminal.silent = True
    terminal.child.send(b"\t")
    terminal.until(lambda: bool(terminal.kitty().sent), "a picture")
    terminal.read(2.5)  # so late is the answer to the question behind the picture at least: an answer in 1 s is soon
    terminal.silent = False
    terminal.wait_for("the link is slow")
    terminal.until(lambda: "▀" in terminal.text(), "blocks")
    assert not terminal.kitty().images and len(terminal.kitty().sent) <= 2


@pytest.mark.parametrize("value", ['"iterm"', "1", "[]"])
def test_wrong_setting_is_one_sentence(tmp_path: Path, value: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"pictures = {value}\n")
    with pytest.raises(settings.SettingsError, match=r"pictures = .*: write ") as caught:
        settings.load(file)
    assert len(str(caught.value).splitlines()) == 1
    file.write_text('pictures = "sixel"\n')
    assert settings.load(file).pictures == "sixel"


def test_old_pictures_make_room_for_new_ones() -> None:
    graphics, total, history = Graphics("kitty", 100), 60, ""
    for number in range(total):
        box = (0, 0, 4, 2)
        wanted = {box: Placed(0, 0, 4, 2, f"picture {number}", "kitty", b"x")}
        text, _ = graphics.clear(wanted)
        history += text + graphics.show(box, wanted[box])
    there = Kitty(history.encode())
    assert len(there.images) <= 24 and list(there.shown) == [100 + total - 1]


def test_large_photo_is_sent_in_fewer_bytes_and_looks_much_the_same() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 40, (400, 600, 3)) + np.linspace(0, 200, 600)[None, :, None]
    photo = Image.fromarray(noise.astype(np.uint8))
    data = png(photo)
    plain = io.BytesIO()
    photo.save(plain, "PNG")
    assert len(data) < len(plain.getvalue()) / 2
    after = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(after - np.asarray(photo).astype(int)).mean() < 16


def test_encoders_keep_every_colour_of_a_label_map() -> None:
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 200, (37, 53), dtype=np.uint8)
    picture = Image.fromarray(indices)
    picture.putpalette([int(value) for value in rng.integers(0, 256, 3 * 200)])
    colors = np.asarray(picture.convert("RGB"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(picture))).convert("RGB")), colors)
    body = re.search(rb"q(.*)\x1b\\", sixel(picture), re.DOTALL)
    assert body is not None
    assert np.array_equal(unsixel(body[1]), np.round(100 * colors.astype(float) / 255))
