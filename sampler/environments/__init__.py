"""Spaces of candidates, one file each (the crystal's helpers lie beside it)."""
