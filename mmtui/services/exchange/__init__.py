"""Runs for other tools, and runs from elsewhere."""
