"use strict";
// A form of films and questions. The order depends on the form and the rater's name alone, so a reload keeps it.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const FRAME_MS = 120, HELD = 5; // the first and the last frame stay for HELD ticks
const OPTIONS = ["A", "B"];
const state = { rater: "", order: [], place: 0, answers: new Map(), shownAt: 0, films: [], tick: 0, paused: false, saved: false };

function element(tag, properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// 32-bit FNV-1a of a text, and a generator of numbers in [0, 1) from it (xorshift32).
function seedOf(text) {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash || 1;
}

function randomFrom(seed) {
  let x = seed;
  return () => {
    x ^= x << 13; x >>>= 0;
    x ^= x >>> 17;
    x ^= x << 5; x >>>= 0;
    return x / 2 ** 32;
  };
}

function shuffled(items, random) {
  const order = [...items];
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

// Films: canvases that step through their sprite there and back.

function film(address, label) {
  const canvas = element("canvas", { width: data.width, height: data.height, className: Math.max(data.width, data.height) < 144 ? "pixels" : "" });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  const picture = element("img", { src: address });
  picture.addEventListener("load", drawFilms); // also while films are paused
  state.films.push({ canvas, picture });
  return canvas;
}

function frameAt(tick, steps) {
  const place = tick % (2 * (steps - 1 + HELD));
  const back = place >= steps - 1 + HELD;
  const moved = Math.min(back ? place - (steps - 1 + HELD) : place, steps - 1);
  return back ? steps - 1 - moved : moved;
}

function drawFilms() {
  for (const { canvas, picture } of state.films) {
    if (!picture.complete || !picture.naturalWidth) continue;
    const step = frameAt(state.tick, picture.naturalWidth / data.width);
    canvas.getContext("2d").drawImage(picture, step * data.width, 0, data.width, data.height, 0, 0, data.width, data.height);
    canvas.dataset.step = step;
  }
}

setInterval(() => {
  if (state.paused) return;
  state.tick += 1;
  drawFilms();
}, FRAME_MS);

// Questions

function show() {
  const done = state.place >= state.order.length;
  byId("ask").hidden = done;
  byId("end").hidden = !done;
  state.films = [];
  if (done) {
    byId("csv").value = csv();
    byId("save").focus();
    return;
  }
  const question = state.order[state.place];
  const given = (state.answers.get(question.id) || {}).answer || "";
  byId("place").textContent = `Question ${state.place + 1} of ${state.order.length}`;
  byId("back").disabled = state.place === 0;
  byId("films").replaceChildren();
  byId("answer").replaceChildren();
  (question.kind === "identification" ? askOption : askWords)(question, given);
  state.tick = 0;
  state.shownAt = performance.now();
}

function askOption(question, given) {
  byId("prompt").textContent = "These two films show the same kind of change.";
  byId("films").append(...question.films.slice(0, 2).map((address, i) => film(address, `example ${i + 1}`)));
  const options = OPTIONS.map((option, i) => {
    const radio = element("input", { type: "radio", name: "option", value: option, required: true, checked: option === given });
    return element("label", {}, [film(question.films[2 + i], `film ${option}`), radio, ` Film ${option}`]);
  });
  const legend = element("legend", { textContent: "Which film shows this change too?" });
  byId("answer").append(element("fieldset", { className: "options" }, [legend, ...options]));
  (byId("answer").querySelector("input:checked") || byId("answer").querySelector("input")).focus();
}

function askWords(question, given) {
  byId("prompt").textContent = "These films show the same kind of change.";
  byId("films").append(...question.films.map((address, i) => film(address, `film ${i + 1}`)));
  const words = element("input", { type: "text", id: "words", required: true, maxLength: 200, value: given, autocomplete: "off" });
  byId("answer").append(
    element("label", { htmlFor: "words", textContent: "What changes most? Describe it in one to four words." }), words);
  words.focus();
}

function keep() {
  const question = state.order[state.place];
  const chosen = byId("answer").querySelector("input:checked") || byId("words");
  const answer = chosen ? chosen.value.trim() : "";
  if (!answer) return;
  const before = (state.answers.get(question.id) || {}).seconds || 0;
  const seconds = before + (performance.now() - state.shownAt) / 1000;
  state.answers.set(question.id, { answer, seconds });
  state.saved = false;
}

function cell(text) {
  const line = String(text).replace(/[\r\n\t]+/g, " ");
  const harmless = /^[=+\-@]/.test(line) ? `'${line}` : line; // no spreadsheet runs it
  return /[",]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}

function csv() {
  const rows = [["pack", "rater", "question", "kind", "position", "answer", "seconds"]];
  state.order.forEach(({ id, kind }, i) => {
    const given = state.answers.get(id);
    if (given) rows.push([data.pack, state.rater, id, kind, i + 1, given.answer, given.seconds.toFixed(1)]);
  });
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function save() {
  const name = state.rater.replace(/[^A-Za-z0-9]+/g, "-").replace(/^-+|-+$/g, "") || "rater";
  const address = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  const link = element("a", { href: address, download: `answers-${name}.csv` });
  link.click();
  URL.revokeObjectURL(address);
  state.saved = true;
}

function move(step) {
  keep();
  state.place += step;
  show();
}

byId("begin").addEventListener("submit", (event) => {
  event.preventDefault();
  const rater = byId("rater").value.trim();
  if (!rater) return;
  state.rater = rater;
  const random = randomFrom(seedOf(`${data.pack} ${rater}`));
  const of = (kind) => shuffled(data.questions.filter((question) => question.kind === kind), random);
  state.order = [...of("identification"), ...of("description")];
  byId("begin").hidden = true;
  show();
});
byId("ask").addEventListener("submit", (event) => { event.preventDefault(); move(1); });
byId("back").addEventListener("click", () => move(-1));
byId("again").addEventListener("click", () => { state.place = state.order.length - 1; show(); });
byId("save").addEventListener("click", save);
byId("pause").addEventListener("click", () => {
  state.paused = !state.paused;
  byId("pause").setAttribute("aria-pressed", String(state.paused));
  byId("pause").textContent = state.paused ? "Run films" : "Pause films";
});
window.addEventListener("beforeunload", (event) => {
  if (state.answers.size && !state.saved) event.preventDefault();
});
