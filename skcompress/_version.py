"""The version, which files and graphs carry, too."""

__version__ = "0.1.0"
