// The page of `dreamer dream`: draws the session's messages, and sends the person's actions to the session.

import { Controls } from "./controls.js";
import { Past } from "./past.js";
import { draw, unpack } from "./pictures.js";
import { Curve, Heat } from "./plots.js";
import { Strip } from "./strip.js";
import { connect } from "./wire.js";

const element = (id) => document.getElementById(id);
const say = (text, kind = "") => {
  element("state").textContent = text;
  element("state").className = kind;
};

let about, past, strip, controls, plots = [], view = null, waits = false, ended = false;
const tell = connect(receive, (reason) => {
  if (!ended) say(reason || "the program has ended; start it again and reload", "error");
  ended = true;
});

function receive(header, bytes) {
  if (header.kind === "beginning") begin(header);
  if (header.kind === "view") show(header, bytes);
  if (header.kind === "file") download(header.name, bytes);
  if (header.kind === "note") element("hint").textContent = header.text;
  if (header.kind === "error") {
    ended = true;
    say(header.text, "error");
  }
}

function begin(header) {
  about = header;
  document.title = `Dream: ${about.task}`;
  element("task").textContent = about.task;
  element("about").textContent = `agent of iteration ${about.iteration}`;
  past = new Past(about.kept);
  strip = new Strip(element("strip"), (number) => tell("back", { number }));
  controls = new Controls(element("controls"), about.controls, about.resting, (values) => {
    tell("act", { values });
    if (view.who !== "you") tell("who", { who: "you" });
  });
  element("you").disabled = !about.controls.length;
  const note = about.reality ? about.without_pictures : "its environment is not installed here: only dreams";
  element("real-note").textContent = note;
  plots = [...curves(element("curves")), ...numbers(element(about.frames ? "curves" : "numbers"))];
  element("hint").textContent = "arrow keys, digits or sliders act · a click on the strip goes back and dreams again";
}

function curves(parent) {
  const both = (read) => ({ real: read, dream: read });
  const found = [new Curve(parent, "reward", { real: (step) => step.reward ?? undefined, dream: (step) => step.predicted })];
  if (about.values) found.push(new Curve(parent, "value", both((step) => step.value)));
  if (about.continues) found.push(new Curve(parent, "probability of going on", both((step) => step.continue)));
  found.push(new Curve(parent, "surprise: KL of posterior and prior, nats", { real: (step) => step.surprise }));
  found.push(new Curve(parent, "entropy of the actor, nats", both((step) => step.entropy)));
  if (about.disagreement) found.push(new Heat(parent, "disagreement: of reality, of the dream", both((step) => step.disagreement)));
  return found;
}

function numbers(parent) {
  return about.names.map((name, place) => new Curve(parent, name, {
    real: (step) => step.vector?.[place],
    dream: (step) => step.vector?.map((each) => each[place]),
  }));
}

function show(header, bytes) {
  view = header;
  const pictures = unpack(view.pictures, bytes);
  past.add(view, pictures.real?.[0]);
  if (pictures.real) draw(element("real"), pictures.real);
  if (pictures.dream) draw(element("dream"), pictures.dream);
  if (view.who === "you" && view.playing) controls.show(controls.values); // the chosen action, not the past one
  else if (view.action) controls.show(view.action);
  if (!waits) requestAnimationFrame(drawPlots);
  waits = true;
  tellState();
}

function drawPlots() {
  waits = false;
  strip.draw(past);
  for (const plot of plots) plot.draw(past);
}

function tellState() {
  const behind = view.newest - view.number;
  const where = view.live ? `step ${view.number}` : `step ${view.number}, ${behind > 0 ? `${behind} back` : "beyond what was"}`;
  say(`${where} · ${view.dreaming ? "dreaming" : "awake"}`, view.dreaming ? "asleep" : "");
  document.body.classList.toggle("asleep", view.dreaming);
  document.body.classList.toggle("past-only", !view.real);
  element("dream-title").textContent = view.dreaming ? (view.dream.predicted.length > 1 ? "Dreams" : "Dream") : "What the agent sees";
  element("real-about").textContent = view.real ? `episode ${view.real.episode} · reward ${number(view.real.reward)}` : "";
  element("dream-about").textContent = `reward ${number(view.dream.predicted[0])}`;
  element("play").firstChild.textContent = view.playing ? "Pause" : "Play";
  element("wake").disabled = !view.dreaming || !about.reality;
  element("now").disabled = view.live || !about.reality;
  element("again").disabled = view.live;
  element("speed").value = String(view.speed);
  element("controls").classList.toggle("theirs", view.who !== "you");
  for (const who of ["agent", "you", "again"]) element(who).setAttribute("aria-checked", view.who === who);
}

const number = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));

function download(name, bytes) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes]));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  element("hint").textContent = `saved: ${name}, ${(bytes.length / 1e6).toFixed(1)} MB, the last ${about.kept} steps that were shown`;
}

const actions = {
  play: () => tell("play", { on: !view.playing }),
  step: () => tell("step"),
  reset: () => tell("reset"),
  sleep: () => tell("dream", { count: 1 }),
  grid: () => tell("dream", { count: 9 }),
  wake: () => tell("wake"),
  now: () => tell("now"),
  agent: () => tell("who", { who: "agent" }),
  you: () => tell("who", { who: "you" }),
  again: () => tell("who", { who: "again" }),
};
const keys = { " ": "play", ".": "step", r: "reset", d: "sleep", g: "grid", w: "wake", n: "now", a: "agent", y: "you" };
for (const [id, action] of Object.entries(actions)) {
  element(id).addEventListener("click", (event) => {
    if (view) action();
    event.currentTarget.blur(); // so that the space bar plays and does not press the button again
  });
}
element("speed").addEventListener("change", (event) => tell("speed", { factor: Number(event.target.value) }));
element("save").addEventListener("change", (event) => {
  element("hint").textContent = "a moment: the file is being made";
  tell("save", { format: event.target.value });
  event.target.value = "";
});
addEventListener("keydown", (event) => {
  if (!view || event.ctrlKey || event.metaKey || event.altKey || /SELECT|INPUT/.test(event.target.tagName)) return;
  if (controls.down(event.key)) event.preventDefault();
  else if (event.key in keys && !element(keys[event.key]).disabled) {
    if (event.key !== "." && event.repeat) return;
    event.preventDefault();
    actions[keys[event.key]]();
  }
});
addEventListener("keyup", (event) => controls?.up(event.key));
addEventListener("blur", () => { if (controls) for (const key of [...controls.held.keys()]) controls.up(key); });
addEventListener("resize", () => { if (past) requestAnimationFrame(drawPlots); });
