// Sorting, the viewer, and opening what a link points into. Without scripts the page is whole, in its static order.
"use strict";

// A cell's place: comparable values first, then those set apart, then none; [group, value].
function place(row, column) {
  const data = row.cells[column].dataset;
  if (data.text !== undefined) return [0, data.text];
  if (data.value === undefined) return [2, 0];
  return ["apart" in data ? 1 : 0, Number(data.value)];
}

function compare([groupA, a], [groupB, b], direction) {
  if (groupA !== groupB) return groupA - groupB;
  return direction * (typeof a === "string" && typeof b === "string" ? a.localeCompare(b) : a - b);
}

function sort(table, column, direction) {
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
    rows.sort((a, b) => compare(place(a, column), place(b, column), direction));
    body.append(...rows);
  }
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
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

function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) target.open = true;
}
addEventListener("hashchange", openTarget);
openTarget();

function startViewer(planes) {
  const sprites = document.querySelectorAll("img.sprite");
  const [X, Y, Z] = JSON.parse(planes.dataset.sides);
  const sliders = ["X", "Y", "Z"].map((axis) => [axis, document.getElementById(`slice-${axis}`)]);
  const panes = [];
  const draw = (pane) => {
    for (const [axis, slider] of sliders) pane.numSlice[axis] = slider.valueAsNumber;
    pane.init();
    pane.drawAll();
  };
  ["left", "right"].forEach((side, index) => {
    const pane = brainsprite({
      canvas: `${side}-canvas`, sprite: `${side}-sprite`, nbSlice: { X, Y, Z }, crosshair: true,
      colorCrosshair: "#4fa3ff", affine: JSON.parse(planes.dataset.affine), flagCoordinates: true,
      onclick: () => {
        for (const [axis, slider] of sliders) slider.value = pane.numSlice[axis];
        panes.forEach(draw);
      },
    });
    const select = document.getElementById(`${side}-volume`);
    const choose = () => { pane.sprite.src = sprites[select.value].src; };
    select.addEventListener("change", choose);
    select.value = String(Math.min(2 * index, sprites.length - 1));
    choose();
    panes.push(pane);
  });
  for (const [, slider] of sliders) slider.addEventListener("input", () => panes.forEach(draw));
}

const planes = document.getElementById("planes");
if (planes) {
  planes.hidden = false;
  // brainsprite measures its picture once, so it must be there.
  const ready = ["left", "right"].map((side) => {
    const picture = new Image();
    picture.id = `${side}-sprite`;
    picture.hidden = true;
    picture.src = document.querySelector("img.sprite").src;
    planes.append(picture);
    return picture.decode();
  });
  Promise.all(ready).then(() => startViewer(planes));
}
