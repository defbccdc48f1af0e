"""Makes the bundled shot-transition models: renders clips, trains, evaluates."""
