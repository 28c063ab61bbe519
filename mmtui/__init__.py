"""mmtui: a terminal experiment manager for Mix-and-Match tuned segmentation networks."""

__version__ = "0.1.0"
