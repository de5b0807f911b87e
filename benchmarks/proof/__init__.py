"""Found networks beside known ones on real images, in cells of data, noise and size."""
