"""U-Nets that denoise an image and classify it at once, and differ in how they carry features."""
