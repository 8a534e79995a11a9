"""Four-voice chorales by J. S. Bach, from the scores inside the music21 package."""
