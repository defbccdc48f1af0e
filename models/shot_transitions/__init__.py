"""How the bundled shot-transition models are made: render clips, train, evaluate."""
