"""The command line, `m4m`: parse, call, print.

Heavy imports wait until a command has checked what it can without them, so that help, music
commands and mistakes are answered at once.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m4m_jax import runtime
from m4m_jax.errors import M4MError

if TYPE_CHECKING:
    from m4m_jax.music import NoteTable

app = typer.Typer(
    help="Music-for-music models: train, generate, inspect.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Build, inspect and pack data sets.", rich_markup_mode=None)
app.add_typer(data_app, name="data")
bench_app = typer.Typer(
    help="Measure how fast it is, and how well it analyses.", rich_markup_mode=None
)
app.add_typer(bench_app, name="bench")
convert_app = typer.Typer(help="Convert weights from and to PyTorch.", rich_markup_mode=None)
app.add_typer(convert_app, name="convert")

# Typer carries a copy of Click in some versions and needs Click in others; this is either's.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

_INTERRUPTED = 130  # as a shell reports a program ended by Ctrl-C
_COMPUTING = ("train", "generate", "analyze", "evaluate", "quickstart", "bench")


class _InterruptedError(Exception):
    """Ctrl-C, of which more is to be said than that it came."""


MidiFile = Annotated[str, typer.Argument(metavar="FILE", help="A MIDI file.")]
DataDir = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Where data sets live (default: TFDS's own folder)."),
]

Weights = Annotated[
    str,
    typer.Argument(metavar="FILE", help="A .ckpt or .safetensors file, or a PEFT folder."),
]
ModelDir = Annotated[str, typer.Argument(metavar="DIR", help="A model's or a run's directory.")]
BasePath = Annotated[
    str | None,
    typer.Option(metavar="BASE", help="An adapter's language model: a directory or such a file."),
]
ReferenceBase = Annotated[
    str | None,
    typer.Option(metavar="BASE", help="The one that reads references, where that is another."),
]
TaskName = Annotated[
    str | None,
    typer.Option(metavar="TASK", help="What it was trained for (default: as the file tells)."),
]
MaxNotes = Annotated[
    int | None, typer.Option(min=1, max=32, help="Notes that a step holds (default: the task's).")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"m4m {importlib.metadata.version('m4m_jax')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def tracks(file: MidiFile) -> None:
    """List a file's parts: selector, name, program, notes, range."""
    from m4m_jax.music import read_midi
    from m4m_jax.music.inspect import describe_tracks

    song = read_midi(file)
    rows = [("part", "name", "program", "notes", "range")]
    for part in describe_tracks(song):
        span = "-" if part.lowest is None else f"{part.lowest}-{part.highest}"
        program = f"{part.program} {part.instrument}"
        rows.append((part.selector, _printable(part.name), program, str(part.notes), span))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    print(f"{song.length} steps, {len(song.notes)} notes")
    _warn_off_grid(song, file)


@app.command()
def tokenize(
    file: MidiFile,
    reference: Annotated[
        str, typer.Option(metavar="PART", help="Part that is given, such as track-1.")
    ],
    target: Annotated[
        str, typer.Option(metavar="PART", help="Part to be written, such as track-0.")
    ],
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="The .npz to write.")],
    max_notes: Annotated[int, typer.Option(min=1, help="Notes that a step holds, N.")] = 16,
    dedup: Annotated[
        bool, typer.Option("--dedup", help="Make notes of equal program and pitch one.")
    ] = False,
    vocabulary: Annotated[
        str, typer.Option(metavar="NAME", help="plain, or velocity to keep velocities.")
    ] = "plain",
) -> None:
    """Write the tokens and rows of two parts of a MIDI file as .npz.

    A part is all, track-K, upto-K, from-K, notrack-K, drum, nondrum, random-0, random-1, dense,
    sparse, empty, or a track's name.
    """
    from m4m_jax.music.inspect import tokenize_file

    tokenize_file(file, reference, target, max_notes, dedup, vocabulary, out)
    print(out)


@data_app.callback()
def _start_data() -> None:
    """Build, inspect and pack data sets."""


@data_app.command("build")
def data_build(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="bach_chorales, nottingham, pop909_cl, rwc_pop, los_angeles, lakh or midi_folder.",
        ),
    ],
    source: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Folder with the songs, or (not nottingham) its .zip or .tar."
        ),
    ] = None,
    data_dir: DataDir = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Of a midi_folder: your own (default: default); of los_angeles: first_N; of"
            " pop909_cl: analysis.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that read files (default: all cores).")
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=0.1, help="Seconds that reading a file may take.")
    ] = 60.0,
    runner: Annotated[
        str | None,
        typer.Option(
            metavar="RUNNER",
            help="Build with Apache Beam: direct, dataflow, flink or spark (extra beam).",
        ),
    ] = None,
    runner_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An option of Beam's, such as region=us-central1; repeatable.",
        ),
    ] = None,
) -> None:
    """Build a data set; what could not be used is listed with its reason.

    A build that was stopped goes on when it is started again.
    """
    from m4m_jax import datasets
    from m4m_jax.datasets.builder import REPORT_FILE
    from m4m_jax.progress import progress_bar

    full = name if config is None else f"{name}/{config}"
    try:
        with progress_bar(f"building {full}") as progress:
            report = datasets.build(
                full,
                source,
                data_dir,
                workers=workers,
                time_limit=time_limit,
                progress=progress,
                say=print,
                runner=runner,
                runner_options=[f"--{option}" for option in runner_option or ()],
            )
    except KeyboardInterrupt as error:
        raise _InterruptedError(str(error) or "interrupted") from None
    directory = datasets.info(full, data_dir).directory
    print("\n".join(report.summary()))
    if report.rejected or report.notices:
        print(f"  all of these, by file: {directory / REPORT_FILE}")
    print(directory)


@data_app.command("inspect")
def data_inspect(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set that has been built.")],
    task: Annotated[
        str, typer.Option(metavar="TASK", help="The view of its songs.")
    ] = "continuation",
    window: Annotated[int, typer.Option(min=1, help="Steps of a window.")] = 384,
    max_notes: MaxNotes = None,
    batch: Annotated[int, typer.Option(min=1, help="Windows of a batch.")] = 8,
    data_dir: DataDir = None,
) -> None:
    """Say what a data set holds for a task, and how much of it is padding."""
    from m4m_jax.config import make_config
    from m4m_jax.data.inspect import inspect

    fields = {"data": name, "task": task, "window": window, "max_notes": max_notes, "batch": batch}
    print("\n".join(inspect(make_config(fields, name), data_dir)))


@data_app.command("pack")
def data_pack(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A data set, or a training configuration (.yaml).")
    ],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="As for m4m train: window=192, seed=1, ..."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="TASK", help="The view of its songs; the same as task=TASK."),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(help="How often each song comes up (default: 1, or as steps and batch say)."),
    ] = None,
    data_dir: DataDir = None,
    packed: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Of the packed data set (default: DATA-TASK-HASH, the hash of what is in it).",
        ),
    ] = None,
) -> None:
    """Store the windows that a run reads, so that its hosts need not make them from songs."""
    from etils import epath

    from m4m_jax.config import change_config, load_config
    from m4m_jax.data.supply import pack, pack_name, told
    from m4m_jax.datasets.store import default_data_dir
    from m4m_jax.progress import progress_bar

    if epochs is not None and epochs <= 0:
        raise M4MError(f"--epochs {epochs:g}: songs come up at least a part of once; give more")
    given = list(changes or ())
    if task is not None:
        if any(text.startswith("task=") for text in given):
            raise M4MError(f"--task {task} and task=... say the same thing; give one of them")
        given.append(f"task={task}")
    if name.endswith((".yaml", ".yml")):
        config = load_config(name, given)
    else:
        config = change_config({"data": name}, given, name)
        if epochs is None and not any(text.startswith("steps=") for text in given):
            epochs = 1.0
    root = default_data_dir() if data_dir is None else epath.Path(data_dir)
    called = packed or pack_name(config, epochs)
    with progress_bar("packing windows") as progress:
        about = pack(
            config,
            root / "packed" / called / "1.0.0",
            data_dir,
            epochs=epochs,
            progress=progress,
        )
    print("\n".join(about.summary))
    print(told(config, about.windows))
    print(about.directory)


@bench_app.callback()
def _start_bench() -> None:
    """Measure how fast it is, and how well it analyses."""


BenchMusic = Annotated[
    str | None,
    typer.Option("--data", metavar="DIR", help="Folder of MIDI files (default: songs made up)."),
]
BenchRounds = Annotated[
    int, typer.Option("--rounds", min=1, metavar="N", help="Times that each of the two is timed.")
]
BenchFile = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Also write the figures as JSON.")
]


@bench_app.command("train")
def bench_train(
    work: Annotated[
        str | None,
        typer.Option(
            "--work",
            metavar="NAME",
            help="chord-to-melody or others-to-drums, or either with -masked, on the masked encoder"
            " (default: all four).",
        ),
    ] = None,
    data: BenchMusic = None,
    rounds: BenchRounds = 3,
    json_file: BenchFile = None,
) -> None:
    """Time training steps beside the PyTorch build (needs the extra convert)."""
    _bench("train", json_file, work=work, folder=data, rounds=rounds)


@bench_app.command("sample")
def bench_sample(
    work: Annotated[
        str | None,
        typer.Option(
            "--work",
            metavar="NAME",
            help="drums-to-others, the only one.",
        ),
    ] = None,
    data: BenchMusic = None,
    rounds: BenchRounds = 3,
    json_file: BenchFile = None,
) -> None:
    """Time sampling beside the PyTorch build (needs the extra convert)."""
    _bench("sample", json_file, work=work, folder=data, rounds=rounds)


@bench_app.command("data")
def bench_data(
    work: Annotated[
        str | None,
        typer.Option(
            "--work",
            metavar="NAME",
            help="build, others-to-drums or continuation (default: all three).",
        ),
    ] = None,
    data: BenchMusic = None,
    json_file: BenchFile = None,
) -> None:
    """Measure how fast songs are read and windows are packed."""
    _bench("data", json_file, work=work, folder=data)


@bench_app.command("analysis")
def bench_analysis(
    data: Annotated[
        str,
        typer.Option("--data", metavar="DIR", help="Folder of MIDI files with .lab files."),
    ],
    work: Annotated[
        str | None,
        typer.Option(
            "--work", metavar="NAME", help="meters-given or meters-found (default: both)."
        ),
    ] = None,
    json_file: BenchFile = None,
) -> None:
    """Measure how well m4m analyze finds chords and beats of annotated songs, without a model."""
    _bench("analysis", json_file, work=work, folder=data)


def _bench(kind: str, json_file: str | None, **given: Any) -> None:
    """Measure, and print and write what was found."""
    import importlib
    import json

    from m4m_jax.files import atomic_path, check_place

    if json_file is not None:
        check_place(json_file)
    try:
        bench = importlib.import_module(f"m4m_jax.bench.{kind}")
    except ModuleNotFoundError as error:
        raise M4MError(
            f"m4m bench {kind} needs {error.name}; install pip install 'm4m_jax[convert]'"
        ) from error
    rows = bench.measure(**given)
    if json_file is not None:
        with atomic_path(json_file) as temporary:
            temporary.write_text(json.dumps(rows, indent=1) + "\n")


@app.command()
def train(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A YAML file, such as those in configs/.")
    ],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="preset=NAME, steps=500, optimizer.clip=1.0, ..."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="DIR", help="The run's directory (default: runs/...)."),
    ] = None,
    data_dir: DataDir = None,
    all_hosts: Annotated[
        bool, typer.Option("--all-hosts", help="Let all hosts tell, not only the first.")
    ] = False,
    coordinator: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Of several processes: where number 0 is."),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="How many processes there are.")
    ] = None,
    process: Annotated[
        int | None, typer.Option(metavar="I", min=0, help="The number of this one, from 0.")
    ] = None,
    join_seconds: Annotated[
        int, typer.Option(metavar="S", min=1, help="How long to wait for all of them.")
    ] = 300,
) -> None:
    """Train a language model or an adapter; goes on by itself where a run stopped.

    On TPU pods, SLURM and GKE its processes find each other; elsewhere --coordinator, --processes
    and --process tell them. Status 75 says that it was stopped by SIGTERM, saved, and can go on.
    """
    runtime.stop_by_signal()
    from m4m_jax.config import load_config, run_name

    settings = load_config(config, changes or ())
    path = out or f"runs/{run_name(config, changes or ())}"
    _quiet_libraries()
    from m4m_jax.training import hosts
    from m4m_jax.training.process import train_here
    from m4m_jax.training.telling import quiet_unless, tells

    hosts.join(coordinator, processes, process, seconds=join_seconds)
    with quiet_unless(tells(all_hosts)):
        result = train_here(settings, path, data_dir, all_hosts=all_hosts)
        print(f"validation NLL {result.before:.4f} -> {result.best:.4f} nats a token")
        print(result.path)


@app.command("compile")
def compile_program(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A YAML file, such as those in configs/.")
    ],
    topology: Annotated[
        str, typer.Option(metavar="KIND:SHAPE", help="Such as v5e:16x16, v5p:4x8x8, v6e:8x8.")
    ],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="As for m4m train; adapters need no base here."),
    ] = None,
    slices: Annotated[int, typer.Option(min=1, help="Slices of that shape.")] = 1,
    per_device_batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Windows of a shard, or sequences (default: as batch says, or 8)."
        ),
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="The sampler instead of the training step.")
    ] = False,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Compile with less effort, sooner; memory comes out larger."),
    ] = False,
    json_file: BenchFile = None,
) -> None:
    """Compile a training step for TPUs without one, and say what it needs (extra tpu)."""
    from m4m_jax.config import load_config
    from m4m_jax.files import check_place
    from m4m_jax.tpu import compile as compiling

    settings = load_config(config, changes or (), baseless=True)
    target = compiling.Target(topology, slices, quick)
    if json_file is not None:
        check_place(json_file)
    compiling.environment()
    if sample:
        report = compiling.compile_sampling(settings, target, per_device_batch or 8)
    else:
        report = compiling.compile_training(settings, target, per_device_batch)
    print("\n".join(compiling.lines(report, target)))
    if json_file is not None:
        compiling.write(report, json_file)


@app.command()
def generate(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="What the model was trained for: chord-to-melody, melody-to-chord, harmonize, "
            "drums-to-others, others-to-drums, song-to-chord, chord-to-song, analysis, "
            "random-split, density-split, copy or continuation.",
        ),
    ],
    file: MidiFile,
    model: Annotated[
        str, typer.Option(metavar="DIR", help="A model's or a run's directory, or PyTorch weights.")
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE", help="The MIDI file to write.")
    ],
    base: BasePath = None,
    reference_base: ReferenceBase = None,
    reference: Annotated[
        str | None, typer.Option(metavar="PART", help="Part that is read (default: the task's).")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="How many; more than one are numbered OUT_1, OUT_2, ...")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the random draws.")] = 0,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(min=1, help="Draw from the k likeliest.")] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Draw from the likeliest share.")
    ] = None,
    prompt: Annotated[int, typer.Option(min=0, help="Steps of the song's own target kept.")] = 0,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Length of the target (default: the song's)."),
    ] = None,
    programs: Annotated[
        str | None,
        typer.Option(metavar="P,...", help="Instruments allowed, such as 0,24 (drums are 127)."),
    ] = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Also draw a piano roll, a PNG.")
    ] = None,
) -> None:
    """Write the target part of a task beside the reference of a song."""
    from m4m_jax.files import check_place
    from m4m_jax.music import get_task, read_midi

    get_task(task)
    for path in (out, plot):
        if path is not None:
            check_place(path)
    song = read_midi(file)
    _warn_off_grid(song, file)
    _quiet_libraries()
    from m4m_jax import generation, pretrained

    written = generation.generate(
        pretrained.load(model, _bases(base, reference_base)[::-1] or None),
        song,
        task,
        name=file,
        reference=reference,
        samples=samples,
        seed=seed,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        prompt_steps=prompt,
        steps=steps,
        programs=None if programs is None else generation.parse_programs(programs),
    )
    for written_to in generation.write_samples(written, out, plot):
        print(written_to)


@app.command()
def evaluate(
    task: Annotated[str, typer.Argument(metavar="TASK", help="As for m4m generate.")],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="The folder of the report.")
    ],
    model: Annotated[
        str | None, typer.Option(metavar="DIR", help="As for m4m generate: it writes to all songs.")
    ] = None,
    base: BasePath = None,
    reference_base: ReferenceBase = None,
    generated: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="A folder of MIDI files to judge, STEM.mid or STEM_k.mid; repeatable.",
        ),
    ] = None,
    truth: Annotated[
        str | None, typer.Option(metavar="DIR", help="A folder of the songs, STEM.mid.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="NAME", help="A data set of the songs, instead.")
    ] = None,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="Of the data set.")] = "test",
    data_dir: DataDir = None,
    target_part: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="The part of the folders' files that is judged, or NAME=PART for one of them"
            " (default: as in the songs, or what m4m generate wrote).",
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="PART", help="Of the songs (default: the task's).")
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="PART", help="Of the songs (default: the task's).")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Of the model, for each song.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of the random draws.")] = 0,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(min=1, help="Draw from the k likeliest.")] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Draw from the likeliest share.")
    ] = None,
    prompt: Annotated[
        int, typer.Option(min=0, help="Steps of the song's own target kept; they are not judged.")
    ] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Judge so much of each song (default: all).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Judge the first songs only.")] = None,
) -> None:
    """Judge what a model, or any other system, writes to songs; goes on where it stopped."""
    from m4m_jax.evaluation import command, table
    from m4m_jax.evaluation.draws import Draws
    from m4m_jax.music import get_task

    get_task(task)
    _quiet_libraries()
    judged = command.evaluate(
        task,
        out,
        command.source(truth, data, split, data_dir),
        generated or (),
        model=model,
        base=_bases(base, reference_base)[::-1],
        target_part=target_part or (),
        reference=reference,
        target=target,
        draws=Draws(samples, seed, temperature, top_k, top_p, prompt),
        steps=steps,
        limit=limit,
    )
    table.show(judged)
    for name in (command.REPORT, command.PAGE):
        print(os.path.join(out, name))


@app.command()
def analyze(
    file: MidiFile,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="The folder to write to.")
    ] = ".",
    model: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="One of the task analysis (default: rules, no model)."),
    ] = None,
    base: BasePath = None,
    reference_base: ReferenceBase = None,
) -> None:
    """Find the chords, beats and bars of a song: .lab, .beats, .jams, a MIDI file and a picture."""
    from m4m_jax.analysis.write import analyze_file

    _quiet_libraries()
    bases = _bases(base, reference_base)[::-1]
    for path in analyze_file(file, out, model, bases, warn=_warn_off_grid):
        print(path)


@convert_app.callback()
def _start_convert() -> None:
    """Convert weights from and to PyTorch."""


@convert_app.command("to-flax")
def convert_to_flax(
    file: Weights,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="The model directory to write.")
    ],
    base: BasePath = None,
    reference_base: ReferenceBase = None,
    task: TaskName = None,
    max_notes: MaxNotes = None,
) -> None:
    """Make a model directory of PyTorch weights, recognised by their contents."""
    _quiet_libraries()
    from m4m_jax.convert import commands
    from m4m_jax.convert.inspect import headline

    bases = _bases(base, reference_base)
    card = commands.to_flax(file, out, bases, task=task, max_notes=max_notes)
    print(headline(card))
    print(out)


@convert_app.command("to-torch")
def convert_to_torch(
    model: ModelDir,
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="The .ckpt to write.")],
) -> None:
    """Write a model as a checkpoint that the PyTorch implementation loads."""
    _quiet_libraries()
    from m4m_jax.convert import commands

    commands.to_torch(model, out)
    print(out)


@convert_app.command("to-safetensors")
def convert_to_safetensors(
    model: ModelDir,
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE", help="The .safetensors to write.")
    ],
) -> None:
    """Write a model, or an adapter alone, as one safetensors file."""
    _quiet_libraries()
    from m4m_jax.convert import commands

    commands.to_safetensors(model, out)
    print(out)


@convert_app.command("to-peft")
def convert_to_peft(
    model: ModelDir,
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="The folder to write.")],
) -> None:
    """Write an adapter as a folder whose low-rank updates the peft library loads."""
    _quiet_libraries()
    from m4m_jax.convert import commands

    commands.to_peft(model, out)
    print(out)


@convert_app.command("inspect")
def convert_inspect(file: Weights) -> None:
    """Say what weights are: system, sizes, task, parameters, and what maps where."""
    _quiet_libraries()
    from m4m_jax.convert.inspect import describe

    print("\n".join(describe(file)))


@convert_app.command("verify")
def convert_verify(
    file: Weights,
    base: BasePath = None,
    reference_base: ReferenceBase = None,
    task: TaskName = None,
    max_notes: MaxNotes = None,
    midi: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The piece to compare on (default: one from here)."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=384, help="How much of it, in 16ths.")] = 128,
) -> None:
    """Compare weights under the PyTorch build and here; status 1 where they disagree."""
    _quiet_libraries()
    from m4m_jax.convert.inspect import headline
    from m4m_jax.convert.verify import verify

    found = verify(
        file,
        _bases(base, reference_base),
        midi=midi,
        steps=steps,
        task=task,
        max_notes=max_notes,
    )
    print(headline(found.card))
    print("\n".join(found.summary()))
    if not found.agrees:
        raise typer.Exit(1)


def _bases(base: str | None, reference_base: str | None) -> list[str]:
    """An adapter's language models, of the target first."""
    return [path for path in (base, reference_base) if path is not None]


@app.command()
def quickstart(
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="Where to write.")
    ] = "quickstart",
) -> None:
    """The whole road in minutes: Bach chorales, a language model, an adapter, a harmonisation."""
    _quiet_libraries()
    from m4m_jax.quickstart import quickstart

    quickstart(out)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _warn_off_grid(song: NoteTable, file: str) -> None:
    from m4m_jax.music.inspect import off_grid_warning

    if warning := off_grid_warning(song):
        print(f"m4m: warning: {file}: {warning}", file=sys.stderr)


def _quiet_libraries() -> None:
    """Keep what libraries say of their own internals off the console; errors still show.

    Most of them speak through absl, which sets its own level when it is imported.
    """
    from absl import logging

    logging.set_verbosity(logging.ERROR)
    # Orbax prints the tracebacks of errors that it also raises.
    logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)


def _fail(message: str) -> int:
    print(f"m4m: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _run(arguments: Sequence[str] | None) -> int:
    """The exit status of a command line; a user's mistake is one line on stderr and status 2."""
    try:
        # Typer turns Ctrl-C into an exit status, or into its own exception in older versions.
        status = app(args=arguments, prog_name="m4m", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except M4MError as error:
        return _fail(str(error))
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "m4m"
        return _fail(f"{error.format_message()} ({command} --help lists what there is)")  # type: ignore[attr-defined]
    except BrokenPipeError:
        # Whoever read the output has gone; nothing is left to be told, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror or error}")
    except _InterruptedError as error:
        print(f"m4m: {error}", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (`sys.argv` by default) and exit with its status."""
    if arguments is None and sys.argv[1:2] and sys.argv[1] in _COMPUTING:
        runtime.use_large_pages()
    runtime.keep_compiled_programs()
    status = _run(arguments)
    if status == _INTERRUPTED:
        print("m4m: interrupted", file=sys.stderr)
    sys.exit(status)
