"""The small package that the notebooks import: worlds, networks, losses, scores, training, exact polytopes, pictures."""
