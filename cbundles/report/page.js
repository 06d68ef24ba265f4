"use strict";
// Maps in which each cell tells its numbers, under the pointer or when the arrow keys chose it; and
// links into what is folded. Without this the page is the same, with still pictures.

for (const drawing of document.querySelectorAll(".drawing:has(.map)")) {
  const maps = JSON.parse(drawing.querySelector("script").textContent);
  const told = drawing.querySelector(".told");
  drawing.querySelectorAll(".map").forEach((area, n) => explore(area, maps[n], told));
}

function explore(area, map, told) {
  const cell = document.createElement("span");
  const across = map.columns.length, up = map.lines.length;
  let column = 0, line = 0;
  cell.className = "cell";
  area.tabIndex = 0;
  area.setAttribute("role", "application"); // arrow keys are for us, not for a screen reader

  function show() {
    const width = area.clientWidth / across, height = area.clientHeight / up;
    const left = column * width, top = (up - 1 - line) * height; // lines count from below
    Object.assign(cell.style, px({ left, top, width, height }));
    area.append(cell);
    told.textContent = textOf(map, column, line);
    // Beside the cell, towards the middle of the drawing, so that it stays within.
    const { clientWidth, clientHeight } = told.parentElement;
    const x = area.offsetLeft + left, y = area.offsetTop + top;
    const sides = { left: "", right: "", top: "", bottom: "" };
    const beside = x + width / 2 < clientWidth / 2 ? { left: x + width + 6 } : { right: clientWidth - x + 6 };
    const level = y + height / 2 < clientHeight / 2 ? { top: y } : { bottom: clientHeight - y - height };
    Object.assign(told.style, sides, px({ ...beside, ...level }));
  }

  function hide() {
    cell.remove();
    told.textContent = "";
  }

  function point(event) {
    const box = area.getBoundingClientRect();
    column = within(Math.floor((event.clientX - box.left) / box.width * across), across);
    line = within(Math.floor((box.bottom - event.clientY) / box.height * up), up);
    show();
  }

  function press(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (event.key === "Escape") return hide();
    if (event.key === "Home") column = 0;
    else if (event.key === "End") column = across - 1;
    else if (step) [column, line] = [within(column + step[0], across), within(line + step[1], up)];
    else return;
    event.preventDefault(); // the page would scroll
    show();
    cell.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  area.addEventListener("pointermove", point);
  area.addEventListener("pointerdown", point);
  area.addEventListener("pointerleave", hide);
  area.addEventListener("focus", show);
  area.addEventListener("blur", hide);
  area.addEventListener("keydown", press);
}

function within(number, count) {
  return Math.min(Math.max(number, 0), count - 1);
}

function px(lengths) {
  return Object.fromEntries(Object.entries(lengths).map(([name, length]) => [name, `${length}px`]));
}

function textOf(map, column, line) {
  const numbers = Object.entries(map.numbers).map(([name, values]) => `${name}: ${values[line][column] ?? "none"}`);
  return [`${map.x} ${map.columns[column]}, ${map.y} ${map.lines[line]}`, ...numbers].join("\n");
}

function unfoldTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  target?.scrollIntoView();
}

addEventListener("hashchange", unfoldTarget);
unfoldTarget();
