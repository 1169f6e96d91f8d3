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

async function startViewer(planes) {
  planes.hidden = false;
  const sprites = document.querySelectorAll("img.sprite"), panes = [];
  const [X, Y, Z] = JSON.parse(planes.dataset.sides);
  const sliders = ["X", "Y", "Z"].map((axis) => [axis, document.getElementById(`slice-${axis}`)]);
  const draw = (pane) => {
    for (const [axis, slider] of sliders) pane.numSlice[axis] = slider.valueAsNumber;
    pane.init();
    pane.drawAll();
  };
  for (const side of ["left", "right"]) {
    const select = document.getElementById(`${side}-volume`);
    select.value = String(Math.min(2 * panes.length, sprites.length - 1)); // the reference, then the first entrant
    const picture = Object.assign(new Image(), { id: `${side}-sprite`, hidden: true, src: sprites[select.value].src });
    planes.append(picture);
    await picture.decode(); // brainsprite measures its picture once, so it must be there
    const pane = brainsprite({
      canvas: `${side}-canvas`, sprite: picture.id, nbSlice: { X, Y, Z }, crosshair: true, colorCrosshair: "#4fa3ff",
      affine: JSON.parse(planes.dataset.affine), flagCoordinates: true,
      onclick: () => {
        for (const [axis, slider] of sliders) slider.value = pane.numSlice[axis];
        panes.forEach(draw);
      },
    });
    panes.push(pane);
    select.addEventListener("change", () => { picture.src = sprites[select.value].src; });
  }
  for (const [, slider] of sliders) slider.addEventListener("input", () => panes.forEach(draw));
}
const planes = document.getElementById("planes");
if (planes) startViewer(planes);
