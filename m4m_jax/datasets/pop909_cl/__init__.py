"""POP909-CL: pop songs for piano, with chords by experts."""
