"use strict";
// Shows frames of sprites (a row per image, a column per step). Text of the data is only ever set as text.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const sprites = new Map(); // address -> promise of a decoded image
const state = { image: 0, rows: [], timer: null };

function element(tag, properties = {}, children = []) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function decoded(address) {
  if (!sprites.has(address)) {
    const picture = element("img", { src: address });
    sprites.set(address, picture.decode().then(() => picture));
  }
  return sprites.get(address);
}

async function draw(canvas, address, image, step) {
  canvas.wanted = `${image},${step}`;
  const picture = await decoded(address);
  if (canvas.wanted !== `${image},${step}`) return; // a later frame was asked for meanwhile
  const { width, height } = data;
  canvas.getContext("2d").drawImage(picture, step * width, image * height, width, height, 0, 0, width, height);
  canvas.dataset.frame = canvas.wanted;
}

function newCanvas(label) {
  const canvas = element("canvas", { width: data.width, height: data.height, className: Math.max(data.width, data.height) < 112 ? "pixels" : "" });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  return canvas;
}

function part(method) {
  const target = Number(byId("target").value);
  return data.parts.find((each) => each.method === method && each.target === target);
}

function shownProbability(p) {
  return p >= 0.01 || p === 0 ? p.toFixed(2) : p.toExponential(0);
}

// One slider over `film` {sprite, p, logOdds, top}; `start` and `detail` depend on the image and the step.
function newRow(film, name, className, start, detail, hint = "") {
  const id = `slider-${state.rows.length}`;
  const canvas = newCanvas(name);
  const slider = element("input", { type: "range", id, min: 0, max: film.p[0].length - 1, step: 1 });
  const fill = element("div");
  const output = element("output");
  output.setAttribute("for", id);
  const note = element("p", { className: "detail" });
  const row = { slider, film, start, show };
  function show() {
    const step = Number(slider.value), p = film.p[state.image][step], top = film.top[state.image][step];
    const target = Number(byId("target").value), flipped = top === target;
    note.textContent = detail(step);
    const change = film.logOdds[state.image][step] - film.logOdds[state.image][start()];
    const gained = Math.round(100 * change) / 100 + 0; // + 0: no negative zero
    output.textContent = `p(${data.classes[target]}) = ${shownProbability(p)}, ` +
      `log-odds ${gained >= 0 ? "+" : ""}${gained.toFixed(2)}, class ${data.classes[top]}`;
    slider.setAttribute("aria-valuetext", `${note.textContent}, ${output.textContent}`);
    fill.style.width = `${100 * p}%`;
    fill.classList.toggle("flipped", flipped);
    output.classList.toggle("flipped", flipped);
    return draw(canvas, film.sprite, state.image, step);
  }
  slider.addEventListener("input", show);
  state.rows.push(row);
  const side = element("div", {}, [element("label", { htmlFor: id, textContent: name }),
    element("p", { className: "detail", textContent: hint }), note, slider,
    element("div", { className: "bar" }, [fill]), output]);
  return element("div", { className: `row ${className}` }, [canvas, side]);
}

function fillColumn(column, method) {
  column.replaceChildren();
  if (!method) return;
  const shown = part(method);
  column.append(element("h2", { textContent: data.methods[method] }));
  if (!shown) {
    column.append(element("p", { textContent: "This method found no attribute for this class." }));
    return;
  }
  const most = shown.together.p[0].length - 1;
  column.append(newRow(shown.together, "All together", "together", () => 0,
    (step) => step ? `first ${step} of ${most} attributes edited` : "no attribute edited"));
  shown.attributes.forEach((attribute, i) => {
    const effect = `${attribute.effect >= 0 ? "+" : ""}${attribute.effect.toFixed(2)}`;
    const end = attribute.direction > 0 ? "maximum" : "minimum";
    column.append(newRow(attribute, `${i + 1}. ${attribute.name}`, "", () => attribute.own[state.image],
      (step) => `value ${attribute.values[state.image][step].toFixed(2)}` +
        (step === attribute.own[state.image] ? ", unedited" : ""), `mean effect on the logit ${effect}, at the ${end}`));
  });
}

function reset() {
  for (const row of state.rows) {
    row.slider.value = row.start();
    row.show();
  }
}

function fillImages() {
  const film = part(byId("left").value) || part(byId("right").value);
  byId("images").replaceChildren();
  if (!film) return;
  film.together.p.forEach((_, i) => {
    const said = data.classes[film.together.top[i][0]];
    const radio = element("input", { type: "radio", name: "image", value: i, checked: i === state.image });
    radio.setAttribute("aria-label", `image ${i + 1}, class ${said}`);
    radio.addEventListener("change", () => { state.image = i; reset(); });
    const canvas = newCanvas("");
    canvas.setAttribute("aria-hidden", "true");
    draw(canvas, film.together.sprite, i, 0);
    byId("images").append(element("label", {}, [radio, canvas, element("span", { textContent: said })]));
  });
}

function rebuild() {
  state.rows = [];
  const right = byId("right").value;
  document.querySelector(".columns").classList.toggle("single", !right);
  fillColumn(byId("left-column"), byId("left").value);
  fillColumn(byId("right-column"), right);
  fillImages();
  reset();
}

function play() {
  const button = byId("play"), playing = state.timer === null;
  button.setAttribute("aria-pressed", String(playing));
  button.textContent = playing ? "Stop" : "Play";
  if (!playing) {
    clearInterval(state.timer);
    state.timer = null;
    return;
  }
  let tick = 0;
  state.timer = setInterval(() => {
    tick += 1;
    for (const row of state.rows) {
      const most = Number(row.slider.max), place = tick % (2 * most || 1);
      row.slider.value = place <= most ? place : 2 * most - place;
      row.show();
    }
  }, 200);
}

function start() {
  const methods = Object.keys(data.methods);
  const option = (value, textContent) => element("option", { value, textContent });
  byId("target").append(...data.targets.map((k) => option(k, data.classes[k])));
  byId("left").append(...methods.map((m) => option(m, data.methods[m])));
  byId("right").append(option("", "nothing"), ...methods.map((m) => option(m, data.methods[m])));
  byId("right").value = methods[1] || "";
  for (const id of ["left", "right"]) byId(id).addEventListener("change", rebuild);
  byId("target").addEventListener("change", () => { state.image = 0; rebuild(); });
  byId("play").addEventListener("click", play);
  byId("reset").addEventListener("click", reset);
  rebuild();
}

start();
