"""Training: batches, the loop, balancing, evaluation, stability, long runs."""
