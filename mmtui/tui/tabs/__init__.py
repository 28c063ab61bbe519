"""The tabs of a run's screen, in their order. A new one is a ``RunTab`` in a file beside these, and its name here."""

from mmtui.tui.tabs.base import RunTab
from mmtui.tui.tabs.classes import ClassesTab
from mmtui.tui.tabs.graph import GraphTab
from mmtui.tui.tabs.log import LogTab
from mmtui.tui.tabs.plain import ChartsTab, ConfigTab, DevicesTab, HistoryTab
from mmtui.tui.tabs.predictions import PredictionsTab

RUN_TABS: tuple[type[RunTab], ...] = (
    ChartsTab,
    GraphTab,
    ClassesTab,
    PredictionsTab,
    LogTab,
    DevicesTab,
    ConfigTab,
    HistoryTab,
)
