"""The simu-note codec as a miditok tokenizer."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import miditok
import numpy as np
import symusic

from m4m_jax.errors import M4MError
from m4m_jax.files import atomic_path
from m4m_jax.music import grid, simunote
from m4m_jax.music.notes import NoteTable, Track, read_midi

# A marker of this text in a Score is where its last step ends.
END_MARKER = "end"
FILE = "tokenizer.json"


class SimuNoteTokenizer(miditok.MusicTokenizer):
    """Songs as simu-notes (see `m4m_jax.music.simunote`), with the habits of miditok.

    A song is one stream: the 2N token ids of each step, one step after the other, EOS and PADs
    included. Ids are those of the codec, so that they fit the models.

    A path is read with `m4m_jax.music.read_midi`. A `symusic.Score` is taken as it is, and symusic
    pairs note-offs and orders parts by its own rules: for the ids that a model was trained on, pass
    the path. (`tokenize_dataset` of the base class passes Scores.)

    Args:
        tokenizer_config: Holds the arguments below in its `additional_params`, where they go
            before the arguments.
        params: A saved tokenizer to load; as `from_pretrained`.
        max_notes: Notes that a step holds, N.
        dedup: Whether notes equal in program, step and pitch are made one.
        vocabulary: "plain" or "velocity".
    """

    def __init__(
        self,
        tokenizer_config: miditok.TokenizerConfig | None = None,
        params: str | Path | None = None,
        *,
        max_notes: int = simunote.MAX_NOTES,
        dedup: bool = False,
        vocabulary: str = "plain",
    ) -> None:
        config = tokenizer_config or miditok.TokenizerConfig()
        given = {"max_notes": max_notes, "dedup": dedup, "vocabulary": vocabulary}
        config.additional_params = {**given, **config.additional_params}
        super().__init__(config, params)
        self.config.special_tokens = ["PAD_None", "BOS_None", "EOS_None"]

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **options: Any
    ) -> SimuNoteTokenizer:
        """Load what `save_pretrained` wrote.

        Args:
            pretrained_model_name_or_path: A folder, its file, or a name on the Hugging Face Hub.
            **options: As of miditok; for the Hub, such as `revision`.

        Raises:
            M4MError: A folder or file holds no tokenizer of this class.
        """
        place = os.fspath(pretrained_model_name_or_path)
        if not os.path.exists(place):
            return super().from_pretrained(place, **options)
        # The Hub's own way warns of a config.json, which tokenizers do not have.
        file = Path(place, FILE) if os.path.isdir(place) else Path(place)
        try:
            kind = json.loads(file.read_text())["tokenization"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise M4MError(f"{file}: no tokenizer that save_pretrained wrote") from error
        if kind != cls.__name__:
            raise M4MError(f"{file}: a {kind}; load it with miditok.{kind}.from_pretrained")
        return cls(params=file)

    @property
    def max_notes(self) -> int:
        """Notes that a step holds, N."""
        return self.config.additional_params["max_notes"]

    @property
    def dedup(self) -> bool:
        """Whether notes equal in program, step and pitch are made one."""
        return self.config.additional_params["dedup"]

    @property
    def vocabulary(self) -> simunote.Vocabulary:
        """How notes become ids."""
        return simunote.by_name(self.config.additional_params["vocabulary"])

    def encode(
        self,
        score: symusic.Score | str | Path,
        encode_ids: bool = True,
        no_preprocess_score: bool = False,
        attribute_controls_indexes: Mapping[int, Mapping[int, Sequence[int] | bool]] | None = None,
    ) -> miditok.TokSequence:
        """Tokenize a MIDI file or a Score.

        Args:
            score: Path or Score.
            encode_ids: Whether ids are merged, where the tokenizer has been trained.
            no_preprocess_score: Has no effect; the codec itself quantizes.
            attribute_controls_indexes: Must be None; there are no such controls.

        Raises:
            M4MError: The file cannot be read, or has no notes.
        """
        if isinstance(score, (str, os.PathLike)):
            tokens = self._table_to_tokens(read_midi(score))
        else:
            tokens = self._score_to_tokens(score, attribute_controls_indexes)
        if encode_ids and self.is_trained:
            self.encode_token_ids(tokens)
        return tokens

    def decode(
        self,
        tokens: Any,
        programs: list[tuple[int, bool]] | None = None,
        output_path: str | Path | None = None,
    ) -> symusic.Score:
        """Turn tokens into a Score of one track per program.

        Args:
            tokens: TokSequence, list of ids, or array of ids [T * 2N] or [T, 2N].
            programs: Has no effect; the tokens say which.
            output_path: A MIDI file to write.

        Raises:
            M4MError: The tokens are malformed.
        """
        if getattr(tokens, "ndim", 1) == 2:
            tokens = np.asarray(tokens).ravel()
        score = super().decode(tokens, programs)
        if output_path is not None:
            with atomic_path(output_path) as temporary:
                temporary.write_bytes(score.dumps_midi())
        return score

    def _tweak_config_before_creating_voc(self) -> None:
        config = self.config
        known = self.vocabulary
        if self.max_notes < 1:
            raise M4MError(f"max_notes must be at least 1, not {self.max_notes}")
        # Special tokens would be put first; they are in the vocabulary, where the codec has them.
        config.special_tokens = []
        config.use_programs = config.one_token_stream_for_programs = True
        config.use_velocities = known.velocity
        config.encode_ids_split = "no"
        config.beat_res = {(0, 1): grid.STEPS_PER_QUARTER}
        self._disable_attribute_controls()

    def _create_base_vocabulary(self) -> list[str]:
        known = self.vocabulary
        names = [f"Unused_{k}" for k in range(known.size)]
        for k in known.program_range:
            names[k] = f"ProgramVelocity_{k % 128}-{k // 128}" if known.velocity else f"Program_{k}"
        for k in known.pitch_range:
            steps = grid.DURATION_BINS[k // 128 - known.bin_offset]
            names[k] = f"PitchDuration_{k % 128}-{steps}"
        names[known.sos], names[known.eos], names[known.pad] = "BOS_None", "EOS_None", "PAD_None"
        return names

    def _create_token_types_graph(self) -> dict[str, set[str]]:
        program = "ProgramVelocity" if self.vocabulary.velocity else "Program"
        return {
            program: {"PitchDuration"},
            "PitchDuration": {program, "EOS"},
            "EOS": {"PAD"},
            "PAD": {"PAD", "EOS", program},
            "BOS": {program, "EOS"},
            "Unused": set(),
        }

    def _add_time_events(
        self, events: list[miditok.Event], time_division: int
    ) -> list[miditok.Event]:
        """The events as they are: each 2N tokens are one step, so no token tells the time."""
        return events

    def _score_to_tokens(
        self, score: symusic.Score, attribute_controls_indexes: object = None
    ) -> miditok.TokSequence:
        if attribute_controls_indexes is not None:
            raise M4MError("this tokenizer has no attribute controls")
        return self._table_to_tokens(score_to_table(score))

    def _table_to_tokens(self, table: NoteTable) -> miditok.TokSequence:
        rows = simunote.to_rows(table.notes, table.length, self.max_notes, dedup=self.dedup)
        ids = simunote.to_tokens(rows, self.vocabulary).ravel()
        names = np.array(list(self.vocab), dtype=object)
        return miditok.TokSequence(tokens=names[ids].tolist(), ids=ids.tolist())

    def _tokens_to_score(
        self,
        tokens: miditok.TokSequence,
        programs: list[tuple[int, bool]] | None = None,
    ) -> symusic.Score:
        if isinstance(tokens, list):
            raise M4MError("a song is one sequence of tokens, not a list of sequences")
        self.complete_sequence(tokens)
        ids = np.array(tokens.ids, np.int64)
        width = 2 * self.max_notes
        if len(ids) % width:
            raise M4MError(f"{len(ids)} tokens are no whole number of steps of {width} tokens")
        rows = simunote.from_tokens(ids.reshape(-1, width), self.vocabulary)
        return table_to_score(simunote.from_rows(rows))


def table_to_score(table: NoteTable) -> symusic.Score:
    """A Score whose ticks are steps, with a marker at the end of the song.

    Tempo and metre are left out: a tokenizer's tokens do not hold them.
    """
    score = symusic.Score(grid.STEPS_PER_QUARTER)
    for number, track in enumerate(table.tracks):
        notes = table.notes[table.notes[:, 5] == number]
        columns = [np.ascontiguousarray(notes[:, c]) for c in (0, 1)]
        small = [notes[:, c].astype(np.int8) for c in (2, 4)]
        part = symusic.Track(track.name, track.program, track.is_drum)
        part.notes = symusic.Note.from_numpy(*columns, *small)
        score.tracks.append(part)
    score.markers.append(symusic.TextMeta(table.length, END_MARKER))
    return score


def score_to_table(score: symusic.Score) -> NoteTable:
    """The notes of a Score, on the grid.

    Every track is a part, its notes in the order in which they end. The length is at the marker
    `END_MARKER`, or else the floor of the latest of: ends of notes, controllers, pitch bends and
    lyrics of tracks with notes, time and key signatures. Tempo and metre are left out.

    Raises:
        M4MError: No notes, or more than 100,000 steps.
    """
    per_quarter = score.ticks_per_quarter
    parts: list[np.ndarray] = []
    tracks: list[Track] = []
    latest = [0]
    for track in score.tracks:
        if not len(track.notes):
            continue
        columns = track.notes.numpy()
        start = columns["time"].astype(np.int64)
        end = start + columns["duration"]
        order = np.lexsort((start, end))
        first = grid.quantize(start, per_quarter)
        duration = grid.quantize(end, per_quarter) - first
        part = Track(track.name, track.program, track.is_drum)
        same = np.full((2, len(start)), [[part.note_program], [len(tracks)]])
        rows = [first, duration, columns["pitch"], same[0], columns["velocity"], same[1]]
        parts.append(np.stack(rows, axis=1)[order])
        tracks.append(part)
        latest.append(int(end.max()))
        latest += [e.time for kind in (track.controls, track.pitch_bends) for e in kind]
        latest += [lyric.time for lyric in track.lyrics]
    if not parts:
        raise M4MError("no notes in this score")
    marks = [m.time for m in score.markers if m.text == END_MARKER]
    latest += [e.time for kind in (score.time_signatures, score.key_signatures) for e in kind]
    length = int(grid.ticks_to_steps(np.array(max(marks or latest)), per_quarter))
    if length > grid.MAX_STEPS:
        raise M4MError(f"this score is {length:,} steps long; songs may have {grid.MAX_STEPS:,}")
    notes = np.concatenate(parts)
    return NoteTable(notes[notes[:, 0] < length].astype(np.int32), tuple(tracks), length)
