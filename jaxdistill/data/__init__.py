"""Records with stable ids, splits by hash, reproducible streams, augmentation inside jit."""
