"""Experiments that anyone can run again. Each is a command that prints a table and a ratio.

`benchmarks.lib` has what they share. RESULTS.md, CLAIMS.md and TABLE.md have what they gave.
"""
