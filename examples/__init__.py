"""Small models that are audited on real images; each is also a program."""
