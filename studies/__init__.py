"""What is kept, and what people look at."""
