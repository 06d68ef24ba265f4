"""Which layers go, which blocks, where one comes, when to start again: pure functions of what was
measured. Nothing here imports JAX, so plans and reports may use it."""
