"""Reports on runs: Markdown, LaTeX, and one HTML file that asks nobody for anything."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmtui.paths import Home
from mmtui.services.svg import chart, ticks
from tests.waiting import PATIENCE

Invoke = Callable[..., Any]
EVIL = '<script>alert(1)</script> & "x" | $y_1$ \\ 100%'


class Page(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def pictured(populated: Home) -> Home:
    """The first run has a picture of a prediction, one that points outside its folder, and an evil name."""
    root = populated.run("1").root
    (root / "images").mkdir()
    for name, colour in (("image", "red"), ("truth", "green"), ("prediction", "blue")):
        Image.new("RGB", (8, 6), colour).save(root / "images" / f"{name}.png")
    Image.new("RGB", (8, 6), "white").save(populated.root / "secret.png")
    good = {"kind": "validation", "index": 0, "name": EVIL} | {
        k: f"images/{k}.png" for k in ("image", "truth", "prediction")
    }
    outside = {**good, "index": 1, "image": "../../secret.png"}
    connection = sqlite3.connect(populated.database)
    for values in (good, outside):
        connection.execute(
            'INSERT INTO events (run_id, attempt, seq, kind, stage, step, global_step, t, "values")'
            " VALUES (1, 1, ?, 'image', 'segment', 4, 4, 0, ?)",
            [100 + values["index"], json.dumps(values)],  # type: ignore[operator]
        )
    connection.execute("UPDATE runs SET name = ? WHERE id = 1", [EVIL])
    connection.commit()
    connection.close()
    return populated


def test_report_markdown_has_facts_and_classes(populated: Home, mmtui_: Invoke) -> None:
    out = mmtui_("report", "1").out
    assert out.startswith("# Run 1 good\n")
    assert "## IoU of each class, %" in out
    table = {
        line.split("|")[1].strip(): line.split("|")[2].strip() for line in out.splitlines() if line.startswith("|")
    }
    # Matrix [[8, 2, 0], [1, 9, 0], [0, 0, 0]].
    assert (table["road"], table["car"], table["bike"]) == (f"{800 / 11:.2f}", f"{900 / 12:.2f}", "-")
    assert table["mean IoU"] == f"{(800 / 11 + 900 / 12) / 2:.2f}"


def test_report_of_two_runs_tells_differences(populated: Home, mmtui_: Invoke) -> None:
    out = mmtui_("report", "1", "3").out
    assert "Settings that differ" in out
    assert "difference" in out
    assert mmtui_("report", "9").code == 4


def test_report_latex_escapes_and_uses_booktabs(pictured: Home, mmtui_: Invoke) -> None:
    out = mmtui_("report", "1", "--latex").out
    assert out.count("\\toprule") == out.count("\\bottomrule") == 2
    assert "\\begin{tabular}{lr}" in out
    assert "\\& " in out and "\\$y\\_1\\$ \\textbackslash{} 100\\%" in out
    for line in out.splitlines():
        if line.endswith("\\\\"):
            assert not re.search(r"(?<!\\)[$#%_]", line), line


def test_report_html_needs_nothing_but_itself_and_escapes_everything(
    pictured: Home, mmtui_: Invoke, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    assert mmtui_("report", "1", "2", "--html", str(file)).out == f"{file}\n"
    text = file.read_text()
    page = Page(text)
    names = [tag for tag, _ in page.tags]
    assert "script" not in names and "link" not in names and "iframe" not in names
    addresses = [
        value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href", "xlink:href")
    ]
    assert addresses and all(str(value).startswith("data:image/png;base64,") for value in addresses)
    assert not re.search(r"url\(|@import|https?://", text)
    assert len(addresses) == 3, "the picture outside the run's folder is not shown"
    secret = base64.b64encode((pictured.root / "secret.png").read_bytes()).decode()
    assert secret not in text
    assert any(EVIL in part for part in page.text)
    assert names.count("svg") == 2, "loss and learning rate"
    assert "\x1b" not in text, "control characters of the second run's name are spelled out"


def test_report_options_that_do_not_go_together(populated: Home, mmtui_: Invoke) -> None:
    assert mmtui_("report", "--latex").code == 2
    assert mmtui_("report", "paper", "--html", "x.html").code == 2
    for file in ("/proc/nowhere/x.html", "/proc/x.html"):
        found = mmtui_("report", "1", "--html", file)
        assert found.code == 3 and found.err.startswith(f"error: {file} cannot be written: ")


def test_report_html_in_a_real_browser(pictured: Home, mmtui_: Invoke, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    file, picture = tmp_path / "report.html", tmp_path / "report.png"
    mmtui_("report", "1", "2", "--html", str(file))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=900,3600"]
    found = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}", file.as_uri()],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert picture.exists(), found.stderr[-500:]
    assert "violates" not in found.stderr and "Refused" not in found.stderr
    colours = Image.open(picture).convert("RGB").getcolors(1 << 24) or []
    assert {(255, 0, 0), (0, 128, 0), (0, 0, 255)} <= {colour for _, colour in colours}, "the three pictures are shown"


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 1000, [0, 200, 400, 600, 800, 1000]),
        (3, 3, [3]),
        (-7, 12, [-5, 0, 5, 10]),
    ],
)
def test_ticks_are_round(low: float, high: float, wanted: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(wanted)


def test_chart_of_nothing_and_of_what_is_not_finite() -> None:
    assert chart("x", []) == ""
    assert chart("x", [("a", [(0, float("nan"))])]) == ""
    drawn = chart("x", [("a<b", [(0, 1.0), (1, float("inf")), (2, 3.0)]), ("c", [(1, 2.0)])])
    points = re.findall(r'points="([^"]*)"', drawn)
    assert [len(one.split()) for one in points] == [2, 1]
    assert "a&lt;b" in drawn and "nan" not in drawn and "inf" not in drawn
