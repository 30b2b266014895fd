"""The version of this build, in one place."""

__version__ = "0.1.0"

PRODUCER = f"tagged-vmstate {__version__}"
