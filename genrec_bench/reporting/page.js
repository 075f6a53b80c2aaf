"use strict";
// Tables that sort by a click on a column's head, pictures to save, and the place of the reader in the contents.

const ABSENT = /^(?:$|-$|[–—])/;
// A number at the start, after marks such as < or †; not the start of a version or of a commit.
const NUMBER = /^[^\p{L}\d+\-−]*([+\-−]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?![\p{L}\d]|[.,]\d)/iu;
const words = new Intl.Collator("en", { numeric: true });

function numberOf(text) {
  const found = NUMBER.exec(text);
  return found ? Number(found[1].replaceAll(",", "").replace("−", "-")) : null;
}

// Values of one column, null where there is none: numbers where most cells begin with one, else words.
function columnOf(rows, column) {
  const texts = rows.map((row) => row.cells[column].textContent.trim());
  const present = texts.filter((text) => !ABSENT.test(text));
  const isNumeric = present.filter((text) => numberOf(text) !== null).length > present.length / 2;
  const values = texts.map((text) => (ABSENT.test(text) ? null : isNumeric ? numberOf(text) : text));
  return { values, isNumeric };
}

// Rows in the order of one column; equal rows keep their order, and rows without a value come last either way.
function ordered(rows, values, direction) {
  const sign = direction === "ascending" ? 1 : -1;
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" ? a - b : words.compare(a, b));
  };
  return rows.map((row, i) => [row, values[i]]).sort((a, b) => compare(a[1], b[1])).map(([row]) => row);
}

// A first click puts the highest number or the first word on top, a second the other end, a third the report's order.
function sortBy(head, original) {
  const table = head.closest("table");
  const rows = [...table.tBodies[0].rows];
  const { values, isNumeric } = columnOf(rows, head.cellIndex);
  const directions = isNumeric ? ["descending", "ascending"] : ["ascending", "descending"];
  const direction = directions[directions.indexOf(head.getAttribute("aria-sort")) + 1] ?? "none";
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", direction);
  table.tBodies[0].append(...(direction === "none" ? original : ordered(rows, values, direction)));
}

for (const table of document.querySelectorAll("table")) {
  const original = [...table.tBodies[0].rows];
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sortBy(head, original));
  }
}

for (const link of document.querySelectorAll("a[data-save]")) {
  link.title = "Save this picture";
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const file = document.createElement("a");
    file.href = document.getElementById(decodeURIComponent(link.hash.slice(1))).src;
    file.download = link.dataset.save;
    file.click();
  });
}

const contents = document.getElementById("contents");
const entries = new Map([...contents.querySelectorAll("a")].map((a) => [decodeURIComponent(a.hash.slice(1)), a]));

const headings = [...document.querySelectorAll("h1, h2, h3")];

// Marks the heading the reader has come to. Where the contents do not stay in sight, opening them would move the page.
function mark() {
  const heading = headings.findLast((one) => one.getBoundingClientRect().top < 64) ?? headings[0];
  const entry = entries.get(heading.id) ?? entries.get(heading.closest("article").id);
  if (entry.hasAttribute("aria-current") || getComputedStyle(contents).position !== "sticky") return;
  contents.querySelector("[aria-current]")?.removeAttribute("aria-current");
  entry.setAttribute("aria-current", "true");
  const part = entry.closest("details");
  if (part) part.open = true;
  const place = entry.getBoundingClientRect();
  if (place.top < 0 || place.bottom > innerHeight) contents.scrollTop += place.top - innerHeight / 3;
}

addEventListener("scroll", () => requestAnimationFrame(mark), { passive: true });
mark();
