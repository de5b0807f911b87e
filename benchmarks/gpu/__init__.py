"""Everything that only a GPU can tell: ``python -m benchmarks.gpu --minutes 8``.

Is what is trained there right, how fast is it, and what does a whole search find? The most telling checks come first.
Each is bounded in time and has a process of its own (`benchmarks.lib.checks`); what it finds is printed and kept in
``runs/gpu`` at once. Without a GPU the same code runs on the CPU with tiny settings, so that the first minute on a real
card finds no typing errors; its figures mean nothing then.

``benchmarks/pack.sh`` makes an archive for a machine with a GPU and torch, but without a network and Ray.
"""
