"""Data: sources, splits, noise, augmentation, photographs."""
