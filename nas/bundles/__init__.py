"""Bundles: what leaves the house, and what is done with it."""
