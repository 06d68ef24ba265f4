"""What `scripts/attack.py` does to the product: one module for each kind of attack."""
