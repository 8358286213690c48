"""A device process that ends at once."""
