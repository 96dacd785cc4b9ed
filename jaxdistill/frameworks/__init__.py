"""Nets from the modules of a framework, a file each; none is imported before it is used."""
