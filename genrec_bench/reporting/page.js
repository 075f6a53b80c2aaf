"use strict";
// The leaderboard: filters, sorting and the runs of a line. What is shown stands in the address behind #.

const data = JSON.parse(document.getElementById("data").textContent);
const START = { level: "item", dataset: "", profile: "", backbone: "", group: "", text: "", sort: "", order: "",
  open: "" };
const LEVELS = { item: "items", id: "semantic IDs" };
const DASH = "–";
const DRAWN = ["svg", "polyline", "line", "circle", "text", "title"];
const words = new Intl.Collator("en", { numeric: true });
const byId = (id) => document.getElementById(id);
const box = byId("lines"), form = byId("filters");
let state = { ...START };

for (const block of data.blocks) {
  for (const line of block.lines) {
    line.block = block;
    line.words = [line.label, line.backbone, ...line.groups, block.name, ...line.settings,
      ...line.runs.map((run) => run.id)].join(" ").toLowerCase();
  }
}
const lines = data.blocks.flatMap((block) => block.lines);

function make(tag, attributes = {}, ...children) {
  const space = DRAWN.includes(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
  const element = document.createElementNS(space, tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

// Numbers as they are shown

const fixed = (value) => (value === null || value === undefined ? DASH : value.toFixed(4));
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(4);
const percent = (value) => `${(100 * value).toFixed(1)} %`;
const count = (value) => (value === null || value === undefined ? DASH : Math.round(value).toLocaleString("en-GB"));
const told = (line, name) => line.scores[state.level][name] ?? null;

const inline = (value) => value && `${signed(value[0])} [${signed(value[1])}, ${signed(value[2])}]`;

function interval(value, format) {
  return [format(value[0]), make("small", {}, `[${format(value[1])}, ${format(value[2])}]`)];
}

function score(line, name) {
  const value = told(line, name);
  if (value) return interval(value, fixed);
  return [make("span", { class: "soft" }, line.runs.map((run) => fixed(run.scores[state.level][name])).join(" / "))];
}

// The difference as a bar beside 0, on one scale for a block.
function difference(line) {
  const value = told(line, "difference");
  if (!value) return [line.against === line.label ? make("span", { class: "soft" }, "reference") : DASH];
  const ends = line.block.lines.flatMap((other) => told(other, "difference") ?? []);
  const place = (x) => 40 + (36 * x) / Math.max(...ends.map(Math.abs), 1e-9);
  const [middle, low, high] = value.map(place);
  const side = low > 40 ? "up" : high < 40 ? "down" : "";
  const bar = make("svg", { class: `bar ${side}`, viewBox: "0 0 80 10", "aria-hidden": "true" },
    make("line", { x1: 40, x2: 40, y1: 0, y2: 10 }),
    make("line", { class: "whisker", x1: low, x2: high, y1: 5, y2: 5 }), make("circle", { cx: middle, cy: 5, r: 3 }));
  const verdict = state.level === "item" ? line.scores.item.verdict : null;
  return [bar, ...interval(value, signed), verdict ? make("small", { class: "verdict" }, verdict) : null];
}

function method(line) {
  const open = state.open === line.id;
  const button = make("button", { type: "button", id: `line-${line.id}`, "aria-expanded": open,
    "aria-controls": open ? `runs-${line.id}` : null }, line.label);
  return [button, ...line.badges.map((text) => make("span", { class: "badge" }, text))];
}

function seeds(line) {
  if (!line.seeded) return ["not seeded"];
  const { length } = line.runs;
  return [line.missing.length ? `${length} of ${length + line.missing.length} †` : `${length}`];
}

const scored = (key, title, name, part) =>
  ({ key, title, part, value: (line) => told(line, name)?.[0], cell: (line) => score(line, name) });
const KEPT = "Own items kept", OUT = "Own items taken out", COST = "Cost";
const COLUMNS = [
  { key: "method", title: "Method", part: "", inWords: true, value: (line) => line.label, cell: method },
  scored("ndcg", `NDCG@${data.k}`, `ndcg@${data.k}`, KEPT),
  { key: "difference", title: "Difference to cross-entropy", part: KEPT, cell: difference,
    value: (line) => told(line, "difference")?.[0] },
  scored("recall", `Recall@${data.k}`, `recall@${data.k}`, KEPT),
  scored("unseen-ndcg", `NDCG@${data.k}`, `unseen_ndcg@${data.k}`, OUT),
  scored("unseen-recall", `Recall@${data.k}`, `unseen_recall@${data.k}`, OUT),
  { key: "seeds", title: "Seeds", part: COST, value: (line) => line.runs.length, cell: seeds },
  { key: "steps", title: "Steps", part: COST, value: (line) => line.cost.steps,
    cell: (line) => [count(line.cost.steps)] },
  { key: "time", title: "Time of a run", part: COST, value: (line) => line.seconds, cell: (line) =>
    (line.seconds === null ? [DASH] : [`${line.seconds.toFixed(1)} s`, make("small", {}, line.device.join(", "))]) },
  { key: "lost", title: `Lost by the beam (PR@${data.beam})`, part: "Beam search", value: (line) => line.lost?.[0],
    cell: (line) => (line.lost ? interval(line.lost, percent) : [DASH]) },
];

// Which lines, in which order

function chosen(line) {
  const asked = { dataset: [line.block.dataset], profile: [line.block.profile], backbone: [line.backbone],
    group: line.groups };
  return Object.entries(asked).every(([name, own]) => !state[name] || own.includes(state[name]))
    && state.text.toLowerCase().split(/\s+/).every((word) => line.words.includes(word));
}

// Lines in the order of a column; equal ones keep their order, and lines without a value come last either way.
function ordered(some) {
  const column = COLUMNS.find(({ key }) => key === state.sort);
  if (!column) return some;
  const sign = state.order === "ascending" ? 1 : -1;
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (column.inWords ? words.compare(a, b) : a - b);
  };
  const pairs = some.map((line) => [column.value(line) ?? null, line]);
  return pairs.sort((a, b) => compare(a[0], b[0])).map(([, line]) => line);
}

// A first press puts the highest number or the first word on top, a second the other end, a third the page's order.
function sortBy(column) {
  const orders = column.inWords ? ["ascending", "descending"] : ["descending", "ascending"];
  const order = orders[state.sort === column.key ? orders.indexOf(state.order) + 1 : 0] ?? "";
  show({ sort: order && column.key, order });
}

// The table

function head() {
  const parts = COLUMNS.map(({ part }) => part);
  const groups = parts.map((part, n) => (n && part === parts[n - 1] ? null : make("th", { scope: "colgroup",
    colspan: parts.filter((other) => other === part).length }, part || `Counted by ${LEVELS[state.level]}`)));
  const cells = COLUMNS.map((column) => {
    const about = { type: "button", id: `sort-${column.key}`, title: "Sort by this column" };
    const button = make("button", about, column.title);
    button.addEventListener("click", () => sortBy(column));
    return make("th", { scope: "col", class: column.inWords ? null : "number",
      "aria-sort": state.sort === column.key ? state.order : "none" }, button);
  });
  return make("thead", {}, make("tr", {}, ...groups), make("tr", {}, ...cells));
}

function row(line) {
  const cells = COLUMNS.map((column, n) => (n ? make("td", { class: "number" }, ...column.cell(line)) :
    make("th", { scope: "row" }, ...column.cell(line))));
  const element = make("tr", { class: state.open === line.id ? "line open" : "line" }, ...cells);
  element.addEventListener("click", () => show({ open: state.open === line.id ? "" : line.id }));
  return element;
}

function body(block, some) {
  const title = [make("b", {}, block.name), ` ${count(block.users)} test users`,
    block.decides ? null : make("span", { class: "mark" }, "decides nothing"),
    block.title ? make("small", {}, block.title) : null];
  const rows = ordered(some).flatMap((line) => (state.open === line.id ? [row(line), detail(line)] : [row(line)]));
  return make("tbody", {}, make("tr", { class: "block" }, make("th", { scope: "rowgroup", colspan: COLUMNS.length },
    make("div", {}, ...title.filter((part) => part !== null)))), ...rows);
}

// The runs of a line

function detail(line) {
  const { cost } = line;
  const facts = [["Backbone", line.backbone], ["Group", line.groups.join(", ")], ["Compared with", line.against],
    ["Difference, own items taken out", inline(told(line, "unseen_difference"))],
    ["Parameters", cost.parameters && count(cost.parameters)],
    ["Histories encoded, with gradient and without", passes(line, "histories")],
    ["Decoder positions, with gradient and without", passes(line, "positions")],
    ["Training of all stages", cost.train_seconds && `${cost.train_seconds} s`],
    ["Decoding", cost.decode_users_per_second && `${count(cost.decode_users_per_second)} rows a second`],
    ["Most memory", cost.peak_memory_bytes && `${count(cost.peak_memory_bytes / 2 ** 20)} MiB`]];
  const links = line.suites.map((suite) => `${suite}/report.md`).filter((name) => name in data.links);
  const commands = new Map();
  for (const run of line.runs) commands.set(run.command, [...(commands.get(run.command) ?? []), run.seed]);
  const inside = make("div", { class: "runs" }, make("h3", {}, line.label),
    make("dl", {}, ...facts.filter(([, value]) => value)
      .flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
    make("p", {}, ...links.flatMap((name) => [make("a", { href: name }, data.links[name]), " "])),
    make("h4", {}, "Settings that differ from the defaults"),
    make("ul", { class: "settings" }, ...line.settings.map((text) => make("li", {}, make("code", {}, text)))),
    make("div", { class: "charts" }, chart(line.runs, 2, "NDCG@10 on validation"),
      chart(line.runs, 1, "Loss in training")),
    make("h4", {}, `Runs, counted by ${LEVELS[state.level]}`), runTable(line),
    ...[...commands].flatMap(([command, some]) => [
      make("h4", {}, `Command${line.seeded ? `, seed ${some.join(", ")}` : ""}`),
      make("pre", {}, command ?? "not recorded")]));
  inside.addEventListener("click", (event) => event.stopPropagation());
  return make("tr", { class: "detail", id: `runs-${line.id}` }, make("td", { colspan: COLUMNS.length }, inside));
}

function passes({ cost }, what) {
  const both = [cost[`${what}_with_gradient`], cost[`${what}_without_gradient`]];
  return both[0] === undefined ? null : both.map(count).join(" and ");
}

function runTable(line) {
  const names = ["", "unseen_"].flatMap((begin) => [`${begin}ndcg@${data.k}`, `${begin}recall@${data.k}`]);
  const both = [KEPT, OUT].flatMap((part) => [`NDCG@${data.k}, ${part.toLowerCase()}`, `Recall@${data.k}`]);
  const titles = ["Seed", ...both, "Epochs (best)", "Time, last stage", "Made by", "Machine", "Code",
    "Files of record, ranks and diagnosis"];
  const rows = line.runs.map((run) => {
    const [device, cpu, threads, version, torch, commit, dirty] =
      [...run.machine, ...run.code].map((part) => part ?? "?");
    return [line.seeded ? run.seed : DASH, ...names.map((name) => fixed(run.scores[state.level][name])),
      run.epochs ? `${run.epochs} (${run.best})` : DASH, run.seconds === null ? DASH : `${run.seconds} s`,
      run.makers.join(", "), `${device}, ${cpu}, threads: ${threads}`,
      `${version}, torch ${torch}, commit ${commit.slice(0, 10)}${dirty === true ? ", changed" : ""}`,
      run.files.join("\n") + (run.uses.length ? `\ngoes on from ${[...new Set(run.uses)].join(", ")}` : "")];
  });
  const cell = (text, n) => make("td", { class: n < 7 ? "number" : n === 10 ? "files" : null }, text);
  return make("div", { class: "box", role: "region", tabindex: 0, "aria-label": "Runs" }, make("table", {},
    make("thead", {}, make("tr", {}, ...titles.map((title) => make("th", { scope: "col" }, title)))),
    make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map(cell))))));
}

// A curve a seed; a ring around the epoch whose weights were kept.
function chart(runs, at, title) {
  const series = runs.map((run) => [run, run.curve.filter((point) => point[at] !== null)]);
  const every = series.flatMap(([, points]) => points);
  if (!every.length) return null;
  const [low, high] = [Math.min, Math.max].map((most) => most(...every.map((point) => point[at])));
  const last = Math.max(...every.map(([epoch]) => epoch));
  const x = (epoch) => 48 + (258 * (epoch - 1)) / Math.max(last - 1, 1);
  const y = (value) => 122 - (108 * (value - low)) / (high - low || 1);
  const drawn = series.flatMap(([run, points], n) => [
    make("polyline", { class: `seed s${n % 5}`, points: points.map((p) => `${x(p[0])},${y(p[at])}`).join(" ") }),
    ...points.filter(([epoch]) => epoch === run.best).map((best) =>
      make("circle", { class: `seed s${n % 5}`, cx: x(best[0]), cy: y(best[at]), r: 4 },
        make("title", {}, `seed ${run.seed}, epoch ${best[0]}: ${fixed(best[at])}`)))]);
  const label = (text, left, top, anchor) => make("text", { x: left, y: top, "text-anchor": anchor }, text);
  const alternative = `${title}: from ${fixed(low)} to ${fixed(high)} in ${last} epochs`;
  return make("figure", {}, make("figcaption", {}, `${title}, a line a seed, a ring at the epoch that was kept`),
    make("svg", { viewBox: "0 0 320 140", role: "img", "aria-label": alternative },
      make("line", { x1: 44, x2: 310, y1: 126, y2: 126 }), make("line", { x1: 44, x2: 44, y1: 8, y2: 126 }),
      label(fixed(high), 40, 17, "end"), label(fixed(low), 40, 126, "end"), label("1", 48, 138, "middle"),
      label(`${last} epochs`, 310, 138, "end"), ...drawn));
}

// Filters and the address

function build() {
  const fields = [["level", "Counted by", Object.entries(LEVELS)]];
  const offer = (name, title, own) => {
    const values = [...new Set(lines.flatMap(own))].sort(words.compare);
    fields.push([name, title, [["", "all"], ...values.map((value) => [value, value])]]);
  };
  offer("dataset", "Data set", (line) => line.block.dataset);
  offer("profile", "Profile", (line) => line.block.profile);
  offer("backbone", "Backbone", (line) => line.backbone);
  offer("group", "Group", (line) => line.groups);
  for (const [name, title, options] of fields) {
    form.append(make("label", {}, title, make("select", { name, id: `by-${name}` },
      ...options.map(([value, text]) => make("option", { value }, text)))));
  }
  form.append(make("label", {}, "Search", make("input",
    { type: "search", name: "text", id: "by-text", placeholder: "method, setting, run" })));
  form.addEventListener("input", ({ target }) => show({ [target.name]: target.value }));
  form.addEventListener("submit", (event) => event.preventDefault());
}

function show(changes) {
  Object.assign(state, changes);
  const focused = document.activeElement?.id;
  const { scrollTop, scrollLeft } = box;
  for (const field of form.elements) if (field.value !== state[field.name]) field.value = state[field.name];
  const some = lines.filter(chosen);
  const blocks = data.blocks.map((block) => [block, some.filter((line) => line.block === block)])
    .filter(([, part]) => part.length);
  byId("count").textContent = `${some.length} of ${lines.length} lines. `
    + (blocks.length > 1 ? "Compare lines of one block only." : blocks.length ? "" : "Nothing fits these filters.");
  box.replaceChildren(make("table", {}, head(), ...blocks.map(([block, part]) => body(block, part))));
  Object.assign(box, { scrollTop, scrollLeft });
  if (focused) byId(focused)?.focus({ preventScroll: true });
  const told = new URLSearchParams(Object.entries(state).filter(([name, value]) => value !== START[name])).toString();
  if (told !== location.hash.slice(1)) history.replaceState(null, "", `#${told}`);
}

// What the address says; words that no filter offers are left out.
function read() {
  const asked = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const fits = ([name, value]) => name in START && (form.elements[name]?.options === undefined ||
    [...form.elements[name].options].some((option) => option.value === value));
  show({ ...START, ...Object.fromEntries(Object.entries(asked).filter(fits)) });
  if (state.open) byId(`line-${state.open}`)?.scrollIntoView({ block: "center" });
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !state.open) return;
  const line = state.open;
  show({ open: "" });
  byId(`line-${line}`)?.focus();
});
window.addEventListener("hashchange", read);
build();
read();
