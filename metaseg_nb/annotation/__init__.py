"""How few annotations are enough: what of a training set is annotated, and how; what the rest is good for."""
