"""TimeSformer as in the paper, its configuration, and its exact inference form."""
