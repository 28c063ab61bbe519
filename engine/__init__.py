"""The training engine: Mix-and-Match tuning of segmentation networks (Zhan et al., AAAI 2018).

Works alone (``python -m engine train --recipe R --run-dir D``) and never imports mmtui.
"""

__version__ = "0.1.0"
