"use strict";
// Notes are [step, duration in steps, pitch, velocity, 1 for drums].
const data = JSON.parse(document.getElementById("data").textContent);
const MARGIN = 4; // pixels above the highest note

// Seconds at a step of a song, by its tempos [step, quarters a minute].
function secondsAt(song, step) {
  let time = 0;
  song.tempos.forEach(([from, tempo], k) => {
    const until = k + 1 < song.tempos.length ? song.tempos[k + 1][0] : Infinity;
    time += Math.max(0, Math.min(step, until) - from) * 15 / tempo;
  });
  return time;
}

function stepAt(song, seconds) {
  let low = 0, high = song.steps;
  for (let k = 0; k < 40; k++) {
    const middle = (low + high) / 2;
    if (secondsAt(song, middle) < seconds) low = middle; else high = middle;
  }
  return low;
}

// One player: it schedules notes a little ahead of time, and moves a cursor over the roll.
const player = {
  audio: null, timer: 0, stopped: () => {},
  stop() { clearInterval(this.timer); if (this.out) this.out.disconnect(); this.stopped(); this.stopped = () => {}; },
  play(song, notes, from, moved, stopped) {
    this.stop();
    this.audio = this.audio || new AudioContext();
    this.audio.resume();
    this.out = this.audio.createGain();
    this.out.gain.value = 0.25;
    this.out.connect(this.audio.destination);
    this.stopped = stopped;
    const begin = this.audio.currentTime + 0.1 - secondsAt(song, from), end = secondsAt(song, song.steps);
    const queue = notes.filter(n => n[0] >= from).sort((a, b) => a[0] - b[0]);
    let next = 0;
    this.timer = setInterval(() => {
      const now = this.audio.currentTime - begin;
      for (; next < queue.length && secondsAt(song, queue[next][0]) < now + 0.25; next++) {
        const [step, duration, pitch, velocity, drum] = queue[next], start = secondsAt(song, step);
        const length = secondsAt(song, step + Math.max(duration, 0.5)) - start;
        (drum ? this.hit : this.tone).call(this, pitch, velocity / 127, begin + start, length);
      }
      moved(stepAt(song, Math.max(now, 0)));
      if (now > end + 0.3) this.stop();
    }, 40);
  },
  envelope(loud, start, length) {
    const gain = this.audio.createGain();
    gain.gain.setValueAtTime(0, start);
    gain.gain.linearRampToValueAtTime(loud, start + 0.01);
    gain.gain.exponentialRampToValueAtTime(0.001, start + Math.max(length, 0.08) + 0.05);
    gain.connect(this.out);
    return gain;
  },
  tone(pitch, loud, start, length) {
    const source = this.audio.createOscillator();
    source.type = "triangle";
    source.frequency.value = 440 * 2 ** ((pitch - 69) / 12);
    source.connect(this.envelope(loud, start, length));
    source.start(start);
    source.stop(start + length + 0.15);
  },
  hit(pitch, loud, start) {
    if (pitch < 37) { // a kick: a tone that falls
      const source = this.audio.createOscillator();
      source.frequency.setValueAtTime(140, start);
      source.frequency.exponentialRampToValueAtTime(45, start + 0.1);
      source.connect(this.envelope(1.6 * loud, start, 0.12));
      source.start(start);
      source.stop(start + 0.25);
      return;
    }
    if (!this.noise) {
      this.noise = this.audio.createBuffer(1, 22050, 44100);
      this.noise.getChannelData(0).forEach((_, k, all) => { all[k] = Math.random() * 2 - 1; });
    }
    const source = this.audio.createBufferSource(), filter = this.audio.createBiquadFilter();
    source.buffer = this.noise;
    filter.type = "bandpass";
    filter.frequency.value = pitch < 42 ? 1800 : pitch > 48 ? 6000 : pitch % 2 ? 500 : 9000;
    source.connect(filter).connect(this.envelope(loud, start, pitch > 48 ? 0.4 : 0.08));
    source.start(start);
    source.stop(start + 0.5);
  },
};

function element(kind, text, parent) {
  const made = document.createElement(kind);
  made.textContent = text;
  parent.append(made);
  return made;
}

function draw(canvas, song, part, low, high, cursor) {
  const line = canvas.height / devicePixelRatio, row = (line - 2 * MARGIN) / (high - low + 1);
  const pen = canvas.getContext("2d");
  pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  pen.fillStyle = "#fafafa";
  pen.fillRect(0, 0, song.steps * song.scale, line);
  pen.fillStyle = "#ddd";
  song.bars.forEach(bar => pen.fillRect(bar * song.scale, 0, 1, line));
  const paint = (notes, colour) => {
    pen.fillStyle = colour;
    notes.forEach(([step, duration, pitch]) => pen.fillRect(step * song.scale,
      MARGIN + (high - pitch) * row, Math.max(duration, 0.5) * song.scale - 1, Math.max(row - 0.5, 1.5)));
  };
  if (part.notes !== song.reference) paint(song.reference, "#bbb");
  paint(part.notes, part.colour);
  if (cursor !== null) { pen.fillStyle = "#c00"; pen.fillRect(cursor * song.scale, 0, 2, line); }
}

function showPart(song, part, low, high, parent) {
  const box = element("div", "", parent), head = element("div", "", box);
  box.className = "roll";
  const button = element("button", "Play", head);
  const key = element("span", "", head);
  key.className = "key";
  key.style.background = part.colour;
  element("span", part.label, head);
  element("span", part.figures, head).className = "figures";
  const pane = element("div", "", box), canvas = element("canvas", "", pane);
  pane.className = "pane";
  const height = Math.min(Math.max(3 * (high - low + 1), 50), 190) + 2 * MARGIN;
  canvas.width = song.steps * song.scale * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
  canvas.style.width = song.steps * song.scale + "px";
  canvas.style.height = height + "px";
  draw(canvas, song, part, low, high, null);
  let playing = false;
  const play = from => {
    const notes = part.notes === song.reference ? part.notes : part.notes.concat(song.reference);
    player.play(song, notes, from, step => draw(canvas, song, part, low, high, step), () => {
      playing = false;
      button.textContent = "Play";
      draw(canvas, song, part, low, high, null);
    });
    playing = true;
    button.textContent = "Stop";
  };
  button.onclick = () => (playing ? player.stop() : play(0));
  canvas.onclick = event => play(event.offsetX / song.scale);
}

function showSong(song, number) {
  const box = element("details", "", document.getElementById("songs"));
  element("summary", song.name, box);
  let shown = false;
  box.ontoggle = () => {
    if (shown) return;
    shown = true;
    song.scale = Math.min(5, 16000 / song.steps); // pixels of a step; a canvas may have 32,767
    const references = song.parts.flatMap(part => (part.song ? part.song.reference : []));
    const pitches = song.parts.flatMap(part => part.notes).concat(song.reference, references).map(note => note[2]);
    const low = pitches.reduce((a, b) => Math.min(a, b), 127), high = pitches.reduce((a, b) => Math.max(a, b), 0);
    if (song.reference.length) {
      const given = { label: "reference", colour: "#888", figures: "", notes: song.reference };
      showPart(song, given, low, high, box);
    }
    // A sample without a song has its own clock and reference.
    song.parts.forEach(part => showPart({ ...song, ...part.song }, part, low, high, box));
  };
  box.open = number === 0;
}

data.forEach(showSong);
