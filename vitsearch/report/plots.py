"""The front as an interactive page and as a picture."""

from vitsearch.report.interactive import front_html
from vitsearch.report.picture import save_front_png

__all__ = ["front_html", "save_front_png"]
