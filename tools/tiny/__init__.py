"""How the embedded models are made: corpus, vocabulary, training, export, evaluation. Not part of the package."""
