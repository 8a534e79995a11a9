"""The language model and the systems that link two streams of music."""
