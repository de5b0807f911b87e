"""The engine: the only room with Ray. It runs searches and confirmations."""
