"""The version of this package, where every floor can import it."""

__version__ = "0.1.0"
