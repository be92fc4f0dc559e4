"""The whole recipe in small, from nothing: it makes the bundled model."""
