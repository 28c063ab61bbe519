"""What is written to the database, by subject. The rows of runs themselves: ``mmtui.store.runs``."""
