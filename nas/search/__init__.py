"""Search without Ray: objectives, Pareto work, samplers, rungs, the statistics of confirmations."""
