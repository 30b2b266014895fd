"""QEMU migration streams: read as events, interpreted by their own description, turned into sections."""
