"""Client of a Holdfast cluster."""

from .client import NAMESPACE_KEY, Client, HoldfastError, Kind

__all__ = ["NAMESPACE_KEY", "Client", "HoldfastError", "Kind"]
