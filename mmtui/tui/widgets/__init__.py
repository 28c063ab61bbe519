"""Widgets: they draw what they are given and decide nothing."""
