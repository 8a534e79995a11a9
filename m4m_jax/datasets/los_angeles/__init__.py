"""The Los Angeles MIDI data set."""
