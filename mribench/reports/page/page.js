// Sorting, entrants side by side, the viewer, and opening what a link points into. Without scripts the page is whole, in its static order.
"use strict";

// A cell's place: comparable values first, then those set apart, then none.
function place(row, column) {
  const { text, value, apart } = row.cells[column].dataset;
  if (text !== undefined) return [0, text];
  return value === undefined ? [2, 0] : [apart === undefined ? 0 : 1, Number(value)];
}

function sort(table, column, direction) {
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
    rows.sort((first, second) => {
      const [groupA, a] = place(first, column), [groupB, b] = place(second, column);
      if (groupA !== groupB) return groupA - groupB;
      return direction * (typeof a === "string" ? a.localeCompare(b) : a - b);
    });
    body.append(...rows);
  }
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    head.dataset.title = head.firstChild.data; // print needs it: Chromium draws no button in a repeated head
    button.append(head.firstChild);
    head.prepend(button);
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(table, column, ascending ? 1 : -1);
    });
  });
}

// One entrant, or two side by side; "" in the first choice shows all.
const views = document.getElementById("views"), chooser = document.getElementById("chooser");

function showChosen() {
  const places = [...chooser.querySelectorAll("select")].map((select) => select.value);
  const [first, second] = [places[0], places[0] && places[1] !== places[0] ? places[1] : ""];
  views.classList.toggle("chosen", Boolean(first));
  views.classList.toggle("two", Boolean(second));
  for (const view of views.children) {
    const shown = view.id && (view.id === first || view.id === second);
    view.classList.toggle("shown", shown);
    if (shown) view.open = true;
  }
}

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const view = target.closest(".entrant");
  if (view && !view.classList.contains("shown")) {
    document.getElementById("first-entrant").value = view.id;
    showChosen();
  }
  for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  target.scrollIntoView();
}

chooser.hidden = views.children.length < 2;
chooser.addEventListener("change", showChosen);
addEventListener("hashchange", openTarget);
openTarget();

for (const row of document.querySelectorAll("tr[data-place]")) {
  row.addEventListener("click", (event) => {
    if (!event.target.closest("a, summary, input") && !String(getSelection())) location.hash = row.dataset.place;
  });
}

// The viewer: nothing of it is decoded before somebody asks for it.
const planes = document.getElementById("planes"), sides = ["left", "right"];
const sprites = new Map([...(document.getElementById("sprites")?.content.children ?? [])].map((img) => [img.dataset.place, img.src]));
const sliders = ["X", "Y", "Z"].map((axis) => [axis, document.getElementById(`slice-${axis}`)]);
const panes = [];

const choice = (side) => document.getElementById(`${side}-volume`);
const picture = (side) => document.getElementById(`${side}-sprite`);

function draw() {
  for (const pane of panes) {
    for (const [axis, slider] of sliders) pane.numSlice[axis] = slider.valueAsNumber;
    pane.init();
    pane.drawAll();
  }
}

async function decoded(uri) {
  const image = Object.assign(new Image(), { src: uri });
  await image.decode();
  return image;
}

async function levels(uri) {
  const image = await decoded(uri);
  const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return { canvas, context, data: context.getImageData(0, 0, image.width, image.height) };
}

async function difference(first, second) {
  const [a, b] = [await levels(first), await levels(second)];
  for (let i = 0; i < a.data.data.length; i++) if (i % 4 < 3) a.data.data[i] = Math.abs(a.data.data[i] - b.data.data[i]);
  a.context.putImageData(a.data, 0, 0);
  return a.canvas.toDataURL();
}

async function show() {
  const [left, right] = sides.map((side) => sprites.get(choice(side).value));
  const both = document.getElementById("difference").checked;
  const shown = { left, right: both ? await difference(left, right) : right };
  for (const side of sides) {
    picture(side).src = shown[side];
    await picture(side).decode();
  }
  draw();
}

async function startViewer() {
  planes.hidden = false;
  document.getElementById("open-viewer").hidden = true;
  const [X, Y, Z] = JSON.parse(planes.dataset.sides);
  for (const side of sides) {
    const image = await decoded(sprites.get(choice(side).value)); // brainsprite measures its picture once
    planes.append(Object.assign(image, { id: `${side}-sprite`, hidden: true }));
    const pane = brainsprite({
      canvas: `${side}-canvas`, sprite: image.id, nbSlice: { X, Y, Z }, crosshair: true, colorCrosshair: "#56b4e9",
      affine: JSON.parse(planes.dataset.affine), flagCoordinates: true,
      onclick: () => {
        for (const [axis, slider] of sliders) slider.value = pane.numSlice[axis];
        draw();
      },
    });
    panes.push(pane);
  }
}

async function lookInside(place) {
  if (place) choice("right").value = place;
  if (panes.length) await show();
  else await startViewer();
  document.getElementById("viewer").scrollIntoView();
  document.getElementById("right-canvas").focus({ preventScroll: true });
}

const KEYS = {
  ArrowLeft: ["X", -1], ArrowRight: ["X", 1], ArrowDown: ["Z", -1], ArrowUp: ["Z", 1], PageDown: ["Y", -1], PageUp: ["Y", 1],
};

function steer(event) {
  const box = document.getElementById("difference");
  if (event.key === "d") box.click();
  else if (KEYS[event.key]) {
    const [axis, step] = KEYS[event.key], slider = document.getElementById(`slice-${axis}`);
    slider.value = slider.valueAsNumber + step;
    draw();
  } else return;
  event.preventDefault();
}

if (planes) {
  const places = [...sprites.keys()];
  choice("right").value = places.find((place) => !place.startsWith("reference/")) ?? places[0];
  const button = document.getElementById("open-viewer");
  button.hidden = false;
  button.addEventListener("click", () => lookInside());
  for (const side of sides) {
    choice(side).addEventListener("change", show);
    document.getElementById(`${side}-canvas`).addEventListener("keydown", steer);
  }
  document.getElementById("difference").addEventListener("change", show);
  for (const [, slider] of sliders) slider.addEventListener("input", draw);
  for (const figure of document.querySelectorAll("[data-volume]")) {
    const caption = figure.querySelector("figcaption");
    if (!caption || !sprites.has(figure.dataset.volume)) continue;
    const look = Object.assign(document.createElement("button"), { type: "button", className: "look no-print", textContent: "look inside" });
    look.addEventListener("click", () => lookInside(figure.dataset.volume));
    (caption.querySelector("strong") ?? caption).append(look);
  }
}
