"""RWC Pop: songs with beats and chords."""
