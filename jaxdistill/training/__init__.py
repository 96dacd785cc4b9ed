"""Running distillers: the one loop, stages, meshes, checkpoints, metrics and reports."""
