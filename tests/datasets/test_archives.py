from __future__ import annotations

import io
import os
import socket
import tarfile
import zipfile

import pytest
from etils import epath

from m4m_jax import datasets
from m4m_jax.datasets import archives, record, store
from m4m_jax.datasets.archives import files_in, read_file
from m4m_jax.errors import M4MError
from m4m_jax.music import write_midi
from m4m_jax.music.notes import midi_bytes
from tests.datasets.music import song

MIDI = (".mid", ".midi")


@pytest.fixture(autouse=True)
def fresh():
    archives._reader.cache_clear()


def pack(kind, path, members):
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    elif kind == "tar":
        with tarfile.open(path, "w") as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    else:
        for name, data in members.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return epath.Path(path)


@pytest.fixture(params=["folder", "zip", "tar"])
def kind(request):
    return request.param


def place(tmp_path, kind):
    return tmp_path / ("songs" if kind == "folder" else f"songs.{kind}")


def test_names_and_contents(tmp_path, kind):
    members = {
        "b/2.mid": b"two",
        "b/1.MID": b"one" * 1000,
        "a.midi": b"",
        "umlaut ä.mid": b"x",
        "b/notes.txt": b"no",
        "b/.hidden.mid": b"no",
        ".git/x.mid": b"no",
    }
    path = pack(kind, place(tmp_path, kind), members)
    names = files_in(path, MIDI, "MIDI file")
    assert names == ["a.midi", "b/1.MID", "b/2.mid", "umlaut ä.mid"]
    for name in reversed(names):
        assert read_file(os.fspath(path), name) == members[name]


def test_a_leading_dot_is_no_hidden_folder_and_a_mac_has_its_own(tmp_path):
    members = {"./a/1.mid": b"1", "__MACOSX/a/._1.mid": b"2", "/b.mid": b"3"}
    for kind in ("zip", "tar"):
        path = pack(kind, place(tmp_path, kind), members)
        assert files_in(path, MIDI, "MIDI file") == ["a/1.mid", "b.mid"]
        assert read_file(os.fspath(path), "a/1.mid") == b"1"


def test_the_folder_that_was_packed_is_no_part_of_names(tmp_path):
    members = {"songs/a/1.mid": b"1", "songs/2.mid": b"2", "__MACOSX/songs/._2.mid": b""}
    pack("folder", tmp_path, members)
    alone = files_in(epath.Path(tmp_path / "songs"), MIDI, "MIDI file")
    assert alone == ["2.mid", "a/1.mid"]
    for kind in ("zip", "tar"):
        path = pack(kind, tmp_path / f"songs.{kind}", members)
        assert files_in(path, MIDI, "MIDI file") == alone
        assert read_file(os.fspath(path), "a/1.mid") == b"1"
        # Names that only look alike, and a folder beside others, stay.
        path = pack(kind, tmp_path / f"song.{kind}", members)
        assert files_in(path, MIDI, "MIDI file") == ["songs/2.mid", "songs/a/1.mid"]
        archives._reader.cache_clear()
        path = pack(kind, tmp_path / f"songs.{kind}", {**members, "b.mid": b""})
        assert files_in(path, MIDI, "MIDI file") == ["b.mid", "songs/2.mid", "songs/a/1.mid"]


def test_an_archive_that_is_cut_off(tmp_path):
    members = {f"{seed}.mid": bytes(range(256)) * 40 for seed in range(4)}
    for kind in ("zip", "tar"):
        path = pack(kind, tmp_path / f"songs.{kind}", members)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 3])
        with pytest.raises(M4MError, match=rf"songs\.{kind}: .*cut off; copy or download") as error:
            datasets.build("lakh", path, tmp_path / "data")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


def test_of_members_of_one_name_the_last_counts(tmp_path):
    with tarfile.open(tmp_path / "songs.tar", "w") as archive:
        for data in (b"old", b"newer"):
            info = tarfile.TarInfo("1.mid")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    path = epath.Path(tmp_path / "songs.tar")
    assert files_in(path, MIDI, "MIDI file") == ["1.mid"]
    assert read_file(os.fspath(path), "1.mid") == b"newer"


def test_songs_are_the_same_from_a_folder_and_from_archives(tmp_path, kind):
    members = {f"MIDIs/{seed % 3}/{seed:02}.mid": midi_bytes(song(seed)) for seed in range(6)}
    path = pack(kind, place(tmp_path, kind), members)
    report = datasets.build("lakh", path, tmp_path / "data", workers=2)
    assert report.kept == report.files == 6
    splits = [datasets.open_split("lakh", s, tmp_path / "data") for s in report.splits]
    songs = {found.song(i).name: found[i] for found in splits for i in range(len(found))}
    assert songs == {f"MIDIs/{seed % 3}/{seed:02}.mid": song(seed) for seed in range(6)}


def test_a_damaged_member_costs_only_itself(tmp_path):
    members = {f"{seed}.mid": midi_bytes(song(seed)) for seed in range(3)}
    path = pack("zip", tmp_path / "songs.zip", {**members, "text.mid": b"no music"})
    data = bytearray(path.read_bytes())
    where = data.index(b"1.mid") + 40
    data[where : where + 8] = bytes(8)
    path.write_bytes(data)
    report = datasets.build("lakh", path, tmp_path / "data", workers=1)
    assert report.kept == 2
    assert set(report.rejected) == {"unreadable"}
    assert set(report.rejected["unreadable"]) == {"1.mid", "text.mid"}


def test_opening_an_archive_is_not_in_the_time_of_a_file(tmp_path, kind, monkeypatch):
    """All that an attempt at a file finds is open, so its time limit may be short."""
    members = {f"{seed}.mid": midi_bytes(song(seed)) for seed in range(3)}
    path = pack(kind, place(tmp_path, kind), members)
    opened = []

    def attempt(step, function, *arguments):
        opened.append(archives._reader.cache_info().currsize)
        return function(*arguments)

    def run_here(job):
        for chunk in job.unread():
            job.work(chunk, attempt)
        for shard in job.unwritten():
            job.work(shard, attempt)

    monkeypatch.setattr(store, "run_local", lambda job, **_: run_here(job))
    assert datasets.build("lakh", path, tmp_path / "data").kept == 3
    assert opened == [1, 1, 1]


def test_what_cannot_be_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = tmp_path / "songs.zip"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
        with pytest.raises(M4MError, match=r"songs\.zip: cannot be opened") as error:
            datasets.build("lakh", path, tmp_path / "data")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("content", [b"", b"no archive at all" * 100])
def test_what_is_no_archive(tmp_path, kind, content):
    path = place(tmp_path, kind)
    path.write_bytes(content)
    with pytest.raises(M4MError, match=f"cannot be read as .{kind}") as error:
        datasets.build("lakh", path, tmp_path / "data")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_archive_that_was_cut_short(tmp_path):
    members = {f"{k}.mid": os.urandom(3000) for k in range(4)}
    for kind in ("zip", "tar"):
        path = pack(kind, place(tmp_path, kind), members)
        path.write_bytes(path.read_bytes()[:7000])
        with pytest.raises(M4MError, match="cannot be read as"):
            files_in(path, MIDI, "MIDI file")


def test_a_tar_with_a_damaged_header(tmp_path):
    path = pack("tar", tmp_path / "songs.tar", {f"{k}.mid": b"x" for k in range(4)})
    data = bytearray(path.read_bytes())
    data[2 * 1024 + 150] ^= 1  # in the checksum of the third member
    path.write_bytes(data)
    with pytest.raises(M4MError, match=r"damaged at byte 2,048"):
        files_in(path, MIDI, "MIDI file")


def test_members_that_are_no_plain_files(tmp_path):
    path = tmp_path / "songs.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("link.mid")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
        folder = tarfile.TarInfo("folder.mid")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    assert files_in(epath.Path(path), MIDI, "MIDI file") == ["link.mid"]
    with pytest.raises(M4MError, match=r"link\.mid: a link"):
        read_file(os.fspath(path), "link.mid")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_that_would_fill_the_memory(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    path = pack(kind, place(tmp_path, kind), {"1.mid": bytes(1001)})
    with pytest.raises(M4MError, match="1,001 bytes"):
        read_file(os.fspath(path), "1.mid")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("missing.zip", "no such file"),
        ("missing", "no such folder"),
        ("songs.tar.gz", "make it a plain .tar first: gunzip"),
        ("songs.tgz", "gunzip"),
        ("songs.rar", "neither a folder nor a .zip or .tar"),
    ],
)
def test_what_is_no_place_for_songs(tmp_path, name, wanted):
    if "missing" not in name:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(M4MError) as error:
        datasets.build("lakh", tmp_path / name, tmp_path / "data")
    assert wanted in str(error.value)
    assert str(tmp_path / name) in str(error.value)


def test_an_archive_without_music(tmp_path, kind):
    path = pack(kind, place(tmp_path, kind), {"notes.txt": b""})
    with pytest.raises(M4MError, match=r"no MIDI file \(\.mid, \.midi\)"):
        files_in(path, MIDI, "MIDI file")


def test_the_first_files_of_los_angeles(tmp_path, monkeypatch):
    for seed in range(5):
        write_midi(song(seed), tmp_path / f"{'dbace'[seed]}.mid")
    report = datasets.build("los_angeles/first_3", tmp_path, tmp_path / "data", workers=1)
    assert report.kept == report.files == 3
    data = tmp_path / "data"
    splits = [datasets.open_split("los_angeles/first_3", s, data) for s in report.splits]
    names = [found.song(i).name for found in splits for i in range(len(found))]
    assert sorted(names) == ["a.mid", "b.mid", "c.mid"]
    whole = datasets.build("los_angeles", tmp_path, data, workers=1)
    assert whole.kept == 5
    assert sum(datasets.info("los_angeles", data).splits.values()) == 5
    assert sum(datasets.info("los_angeles/first_3", data).splits.values()) == 3
    monkeypatch.setattr(record, "RECORD_VERSION", record.RECORD_VERSION + 1)
    with pytest.raises(M4MError, match="build it again") as error:
        datasets.open_split("los_angeles/first_3", "train", data)
    command = f"m4m data build los_angeles --source {tmp_path} --name first_3 --data-dir {data}"
    assert str(error.value).endswith(command)


@pytest.mark.parametrize("name", ["los_angeles", "lakh"])
def test_source_and_licence(tmp_path, name):
    write_midi(song(0), tmp_path / "0.mid")
    datasets.build(name, tmp_path, tmp_path / "data", workers=1)
    text = (datasets.info(name, tmp_path / "data").directory / "dataset_info.json").read_text()
    for word in ("https://", "CC BY", "unknown", "@"):
        assert word in text
