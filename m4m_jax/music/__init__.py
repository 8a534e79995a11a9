"""Music: MIDI files, note tables, parts, and the simu-note representation."""

from m4m_jax.music.compression import Compression as Compression
from m4m_jax.music.compression import compress_rows as compress_rows
from m4m_jax.music.compression import stretch as stretch
from m4m_jax.music.notes import NoteTable as NoteTable
from m4m_jax.music.notes import Track as Track
from m4m_jax.music.notes import midi_bytes as midi_bytes
from m4m_jax.music.notes import parse_midi as parse_midi
from m4m_jax.music.notes import read_midi as read_midi
from m4m_jax.music.notes import write_midi as write_midi
from m4m_jax.music.parts import SELECTORS as SELECTORS
from m4m_jax.music.parts import select as select
from m4m_jax.music.simunote import PLAIN as PLAIN
from m4m_jax.music.simunote import VELOCITY as VELOCITY
from m4m_jax.music.simunote import Vocabulary as Vocabulary
from m4m_jax.music.simunote import from_rows as from_rows
from m4m_jax.music.simunote import from_tokens as from_tokens
from m4m_jax.music.simunote import pitch_shift_range as pitch_shift_range
from m4m_jax.music.simunote import shift_rows as shift_rows
from m4m_jax.music.simunote import shift_tokens as shift_tokens
from m4m_jax.music.simunote import to_rows as to_rows
from m4m_jax.music.simunote import to_tokens as to_tokens
from m4m_jax.music.tasks import TASKS as TASKS
from m4m_jax.music.tasks import Task as Task
from m4m_jax.music.tasks import get_task as get_task
