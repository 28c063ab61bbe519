"""The settings file: defaults, and errors that say what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmtui.settings import Settings, SettingsError, load


def test_load_without_file_gives_defaults(tmp_path: Path) -> None:
    assert load(tmp_path / "config.toml") == Settings() == Settings(color="auto", ascii=False, rows=30)


def test_load_reads_every_key(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('color = "never"\nascii = true\nrows = 7\n')
    assert load(file) == Settings(color="never", ascii=True, rows=7)


@pytest.mark.parametrize(
    "text, told",
    [
        ("colour = 'never'", "did you mean color?"),
        ("xyzzy = 1", "keys are color, ascii, mouse, theme, notify"),
        ("rows = '7'", "a value like 30"),
        ("rows = true", "a value like 30"),
        ("rows = 0", "at least 1"),
        ("on_finish = 'mail me'", "write a list of words"),
        ("on_finish = [1]", "write a list of words"),
        ("ascii = 1", "a value like False"),
        ("color = 'blue'", "auto, always, never"),
        ("rows = ", "not valid TOML"),
        ("[cli]\nrows = 1", "no setting 'cli'"),
    ],
)
def test_load_wrong_file_names_it_and_what_to_write(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(file)
    assert told in str(caught.value)
    assert str(file) in str(caught.value)


def test_load_file_that_cannot_be_read_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path / "config.toml")
    (tmp_path / "latin.toml").write_bytes(b"color = '\xff'")
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path / "latin.toml")
