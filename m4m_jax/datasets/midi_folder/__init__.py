"""The MIDI files of any folder."""
