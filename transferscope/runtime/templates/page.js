"use strict";
for (const table of document.querySelectorAll(".ts-table")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const key = (row) => row.cells[column].dataset.key;
      const numeric = heading.classList.contains("ts-number");
      const compare = (a, b) => {
        if (!numeric) return key(a).localeCompare(key(b), undefined, { numeric: true }) * (down ? -1 : 1);
        // What is not known stays at the end.
        const [x, y] = [Number(key(a)), Number(key(b))];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return (x - y) * (down ? -1 : 1);
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}

const tip = document.getElementById("tip");
const REACH = 16; // pixels: small marks are hard to hit, with a finger above all
for (const title of document.querySelectorAll(".ts-picture title")) {
  const mark = title.parentElement;
  mark.dataset.tip = title.textContent;
  title.remove();
}
const distance = (box, x, y) =>
  Math.hypot(Math.max(box.left - x, 0, x - box.right), Math.max(box.top - y, 0, y - box.bottom));
const under = (event) => {
  const hit = event.target.closest("[data-tip]");
  if (hit) return hit;
  let [best, nearest] = [null, REACH];
  for (const mark of event.currentTarget.querySelectorAll("[data-tip]")) {
    const far = distance(mark.getBoundingClientRect(), event.clientX, event.clientY);
    if (far < nearest) [best, nearest] = [mark, far];
  }
  return best;
};
const show = (event) => {
  const mark = under(event);
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.dataset.tip;
  const left = event.pageX + 14;
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${Math.max(8, Math.min(left, room))}px`;
  tip.style.top = `${event.pageY + 18}px`;
};
for (const picture of document.querySelectorAll(".ts-picture")) {
  picture.addEventListener("pointermove", show);
  picture.addEventListener("pointerdown", show);
  picture.addEventListener("pointerleave", () => { tip.hidden = true; });
}
