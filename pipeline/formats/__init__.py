"""Formats of other programs that trained networks are exported to."""
