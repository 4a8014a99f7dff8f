"""Arithmetic without state."""
