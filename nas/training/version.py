"""The version of the training code, which tells whose figures may be compared. This module does not import torch."""

TRAINING_VERSION = 3
"""It is raised by every change after which the same candidate, data and seed may give another figure: in the loop, the
optimisers, the noise, the initial weights, or in how a network is judged. A change of rounding alone does not raise it,
because another processor rounds differently too.

1. All code before version 2. Trials, runs and checkpoints that name no version are of this one.
2. Gradients and states of optimisers have the memory layout of their parameters, so that `balancing: surgery` changes
   the right weights.
3. The blocks that `extra_blocks` adds begin as the identity.
"""

FIRST_VERSION = 1
"""The version of everything that was trained before versions were kept."""
