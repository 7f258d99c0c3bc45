"""vitsearch finds the best Vision Transformers for your own images, device and budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitsearch.export import Bundle, load

__version__ = "0.1.0"
__all__ = ["Bundle", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Load the heavy public names on first use: ``import vitsearch`` stays light."""
    if name in {"Bundle", "load"}:
        from vitsearch import export

        return getattr(export, name)
    raise AttributeError(f"module 'vitsearch' has no attribute {name!r}")
