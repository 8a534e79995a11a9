import subprocess
import sys

import miditok
import numpy as np
import pytest
import symusic
from miditok import TokenizerConfig, TokSequence

from m4m_jax.errors import M4MError
from m4m_jax.music import NoteTable, Track, read_midi, simunote, to_rows, to_tokens, write_midi
from m4m_jax.music.tokenizer import SimuNoteTokenizer, score_to_table, table_to_score

SONG = NoteTable(
    np.array(
        [
            [0, 2, 72, 73, 80, 0],
            [2, 2, 76, 73, 80, 0],
            [0, 4, 48, 0, 60, 1],
            [0, 4, 48, 0, 60, 1],
            [0, 4, 52, 0, 60, 1],
            [5, 1, 36, 127, 99, 2],
        ]
    ),
    (Track("Solo", 73), Track("", 0), Track("Kit", 25, is_drum=True)),
    16,
)
VARIANTS = [
    {},
    {"max_notes": 2},
    {"max_notes": 8, "dedup": True},
    {"max_notes": 4, "vocabulary": "velocity"},
]


@pytest.fixture
def path(tmp_path):
    write_midi(SONG, tmp_path / "song.mid")
    return tmp_path / "song.mid"


def codec_ids(tok):
    rows = to_rows(SONG.notes, SONG.length, tok.max_notes, dedup=tok.dedup)
    return to_tokens(rows, tok.vocabulary)


@pytest.mark.parametrize("options", VARIANTS)
def test_the_habits_of_miditok(options, path, tmp_path):
    tok = SimuNoteTokenizer(**options)
    tokens = tok(path)
    assert isinstance(tokens, TokSequence)
    assert tokens.ids == codec_ids(tok).ravel().tolist()
    assert tokens.tokens == [tok[k] for k in tokens.ids]

    score = tok.decode(tokens)
    assert isinstance(score, symusic.core.ScoreTick)
    assert {(t.program, t.is_drum) for t in score.tracks} == {(73, False), (0, False), (0, True)}
    assert len(tok(score)) == len(tokens)
    once = tok(score).ids
    assert tok(tok.decode(once)).ids == once
    assert tok.tokens_errors(tokens) == 0

    folder = tmp_path / "saved"
    tok.save_pretrained(folder)
    again = SimuNoteTokenizer.from_pretrained(folder)
    assert again == tok == SimuNoteTokenizer.from_pretrained(folder / "tokenizer.json")
    for name in ("max_notes", "dedup", "vocabulary", "special_tokens"):
        assert getattr(again, name) == getattr(tok, name)
    assert again(path).ids == tokens.ids
    assert again.decode(tokens) == score


def test_saving_and_loading_say_nothing(tmp_path):
    """As the README has it, in a process of its own: loggers print where nobody listens."""
    program = (
        "from m4m_jax import SimuNoteTokenizer as T\n"
        "T(max_notes=8).save_pretrained('saved'); print(T.from_pretrained('saved').max_notes)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("8\n", "")


def test_what_is_no_tokenizer_of_this_kind_is_refused(tmp_path):
    miditok.REMI().save_pretrained(tmp_path / "remi")
    with pytest.raises(M4MError, match=r"a REMI; load it with miditok\.REMI"):
        SimuNoteTokenizer.from_pretrained(tmp_path / "remi")
    with pytest.raises(M4MError, match="no tokenizer that save_pretrained wrote"):
        SimuNoteTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("options", VARIANTS)
def test_ids_are_those_of_the_codec(options):
    tok = SimuNoteTokenizer(**options)
    known = tok.vocabulary
    assert len(tok) == len(tok.vocab) == known.size
    assert list(tok.vocab.values()) == list(range(known.size))
    assert (tok["BOS_None"], tok["EOS_None"], tok["PAD_None"]) == (known.sos, known.eos, known.pad)
    assert tok.pad_token_id == known.pad
    assert tok.special_tokens_ids == [known.pad, known.sos, known.eos]
    assert tok.one_token_stream


def test_sizes():
    assert len(SimuNoteTokenizer()) == 3331
    assert len(SimuNoteTokenizer(vocabulary="velocity")) == 5123
    tok = SimuNoteTokenizer()
    assert tok["Program_5"] == 5
    assert tok["PitchDuration_60-1"] == 188
    assert tok[3199] == "PitchDuration_127-4096"
    assert tok.token_id_type(3200) == "Unused"


def test_arguments_in_the_config():
    config = TokenizerConfig(max_notes=4, vocabulary="velocity")
    tok = SimuNoteTokenizer(config)
    assert (tok.max_notes, tok.dedup, tok.vocabulary) == (4, False, simunote.VELOCITY)


def test_whatever_holds_ids_can_be_decoded(path):
    tok = SimuNoteTokenizer()
    ids = tok(path).ids
    expected = tok.decode(ids)
    assert expected.note_num() == len(SONG.notes)
    assert tok.decode(np.array(ids)) == expected
    assert tok.decode(np.array(ids).reshape(-1, 32)) == expected
    assert tok.decode(TokSequence(tokens=[tok[k] for k in ids])) == expected


def test_a_file_is_written(path, tmp_path):
    tok = SimuNoteTokenizer()
    tok.decode(tok(path), output_path=tmp_path / "out.mid")
    again = read_midi(tmp_path / "out.mid")
    assert sorted(again.notes[:, :3].tolist()) == sorted(SONG.notes[:, :3].tolist())
    assert {p.name for p in tmp_path.iterdir()} == {"song.mid", "out.mid"}


def test_errors(tmp_path):
    tok = SimuNoteTokenizer()
    with pytest.raises(M4MError, match="no whole number of steps"):
        tok.decode([3329, 3330])
    with pytest.raises(M4MError, match="malformed tokens at step 0"):
        tok.decode([3330] * 32)
    with pytest.raises(M4MError, match="one sequence"):
        tok.decode([TokSequence(ids=[3329, 3330])])
    with pytest.raises(M4MError, match="no notes"):
        tok(symusic.Score(480))
    with pytest.raises(M4MError, match="cannot be read"):
        tok(tmp_path / "song.mid")
    with pytest.raises(M4MError, match="no vocabulary"):
        SimuNoteTokenizer(vocabulary="loud")
    with pytest.raises(M4MError, match="at least 1"):
        SimuNoteTokenizer(max_notes=0)


def test_scores_and_tables():
    score = table_to_score(SONG)
    assert score.note_num() == len(SONG.notes)
    assert score_to_table(score) == SONG
    assert score_to_table(score.resample(480)) == SONG


def test_length_of_a_score_without_the_marker():
    score = symusic.Score(480)
    score.tracks.append(symusic.Track())
    score.tracks[0].notes.append(symusic.Note(0, 130, 60, 90))
    assert score_to_table(score).length == 1
    score.tracks[0].controls.append(symusic.ControlChange(490, 64, 0))
    assert score_to_table(score).length == 4
    score.time_signatures.append(symusic.TimeSignature(970, 3, 4))
    assert score_to_table(score).length == 8
    score.tracks[0].notes.append(symusic.Note(0, 100_001 * 120, 60, 90))
    with pytest.raises(M4MError, match="100,001 steps long"):
        score_to_table(score)
