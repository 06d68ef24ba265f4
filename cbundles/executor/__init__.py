"""Where cells are trained: planning populations, and running them in worker processes."""
