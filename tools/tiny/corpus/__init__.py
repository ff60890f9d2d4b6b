"""The synthetic instruction corpus: seeded grammars, in English and Chinese, with a checker for every question."""
