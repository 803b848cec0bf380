"""What Hydra finds of kdexp: it takes plugins from this namespace alone."""
