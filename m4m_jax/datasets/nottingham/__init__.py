"""The Nottingham folk tunes: melodies with chords."""
