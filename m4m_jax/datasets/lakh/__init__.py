"""The Lakh MIDI data set."""
