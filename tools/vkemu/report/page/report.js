"use strict";
// The run, as html.py wrote it. A step is [actor, t, effect, place, causes, rows, changes, guest]; a
// row is [text, weight, pages, addresses, actor, place]; a change is [thing, attribute, before,
// after], where -1 is "not there". Texts are numbers of `run.words`.
const run = JSON.parse(document.getElementById("run").textContent);
const ACTOR = 0, T = 1, EFFECT = 2, PLACE = 3, CAUSES = 4, ROWS = 5, CHANGES = 6, GUEST = 7;
const TEXT = 0, WEIGHT = 1, PAGES = 2, ADDRESSES = 3, LANE = 4, AT = 5;
const word = (n) => (n < 0 ? null : run.words[n]);
const ROW = 20, LEFT = 60, LANE_MIN = 190, BARS = 20, RELEVANT = 2, ESSENTIAL = 5;
let least = RELEVANT; // of the rows that are not folded away; more at first, so that both accesses are seen
const steps = run.steps, last = steps.length - 1;
const $ = (id) => document.getElementById(id);
const el = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

// ---- what is shown: one item a row of a step, or a fold over steps that are not -------------------

const filter = { guest: "", page: null, va: null, fold: run.relevant };
const opened = new Set(); // folds opened by hand, by their first step
let items = [];           // {step, row} or {from, to}
let place = [];           // step -> the item it is at, or that hides it
let current = Math.min(1, last);
let focusFold = null;

const filtering = () => filter.guest !== "" || filter.page !== null || filter.va !== null;

function matches(step) {
  const s = steps[step];
  if (filter.guest !== "" && word(s[GUEST]) !== filter.guest) return false;
  if (filter.page !== null && !s[ROWS].some((row) => row[PAGES].includes(filter.page))) return false;
  if (filter.va !== null && !s[ROWS].some((row) => row[ADDRESSES].some(
    ([start, end]) => start <= filter.va && filter.va < end))) return false;
  if (!filtering() && filter.fold) {
    return s[ROWS].some((row) => row[WEIGHT] >= least) || step === marks.opens || step === marks.closes;
  }
  return true;
}

const marks = {
  opens: run.window ? run.window.opens : -1,
  closes: run.window ? run.window.closes : -1,
  accesses: new Map(), // step -> row -> what it is called
};

for (const access of run.accesses) {
  if (!marks.accesses.has(access.step)) marks.accesses.set(access.step, {});
  marks.accesses.get(access.step)[access.row] = access.role;
}

function layout() {
  items = [];
  place = new Array(steps.length);
  let hidden = -1;
  const flush = (upTo) => {
    if (hidden < 0) return;
    const alone = upTo === hidden + 1 && hidden > 0 && !filtering();
    if (alone || opened.has(hidden)) {
      for (let s = hidden; s < upTo; s++) show(s);
    } else {
      for (let s = hidden; s < upTo; s++) place[s] = items.length;
      items.push({ from: hidden, to: upTo - 1 });
    }
    hidden = -1;
  };
  const show = (s) => {
    place[s] = items.length;
    let first = true;
    steps[s][ROWS].forEach((row, i) => {
      // Of the set-up only what matters, unless everything is asked for.
      if (s === 0 && run.relevant && filter.fold && !filtering() && row[WEIGHT] < RELEVANT) return;
      items.push({ step: s, row: i, first });
      first = false;
    });
  };
  for (let s = 0; s <= last; s++) {
    if (s === 1) flush(1); // the set-up is no part of a fold
    if (steps[s][ROWS].length === 0) { place[s] = items.length; continue; }
    if (matches(s)) { flush(s); show(s); } else if (hidden < 0) hidden = s;
  }
  flush(last + 1);
  $("canvas").style.height = `${Math.max(items.length, 1) * ROW + 40}px`;
  const visible = items.reduce((n, item) => n + (item.first && item.step > 0 ? 1 : 0), 0);
  $("shown").textContent = `${visible} of ${last} steps`;
}

// ---- lanes ---------------------------------------------------------------------------------------

let lane = LANE_MIN;
function lanes() {
  const room = $("scroll").clientWidth - LEFT - 10;
  lane = Math.max(LANE_MIN, Math.floor(room / Math.max(1, run.actors.length)));
  const width = LEFT + lane * run.actors.length;
  $("canvas").style.width = `${width}px`;
  const box = $("lanes");
  box.replaceChildren(...run.actors.map((actor, i) => {
    const name = el("span", "", actor);
    name.title = actor;
    name.dataset.x = laneX(i);
    name.style.width = `${lane - 12}px`;
    return name;
  }));
  slideLanes();
}
const laneX = (i) => LEFT + i * lane;
function slideLanes() {
  for (const name of $("lanes").children) {
    name.style.left = `${name.dataset.x - $("scroll").scrollLeft + BARS}px`;
  }
}

// ---- rows: only those in view exist --------------------------------------------------------------

function draw() {
  const scroll = $("scroll");
  const first = Math.max(0, Math.floor(scroll.scrollTop / ROW) - 6);
  const end = Math.min(items.length, Math.ceil((scroll.scrollTop + scroll.clientHeight) / ROW) + 6);
  const nodes = [];
  for (let i = 0; i < run.actors.length; i++) {
    const rule = el("div", "rule");
    rule.style.left = `${laneX(i) - 2}px`;
    nodes.push(rule);
  }
  for (let i = first; i < end; i++) nodes.push(items[i].from === undefined ? stepRow(i) : foldRow(i));
  nodes.push(...bars(first, end));
  $("rows").replaceChildren(...nodes);
  $("rows").setAttribute("aria-activedescendant", `row-${current}`);
  arrows(first, end);
  slideLanes();
  overview();
}

function stepRow(i) {
  const { step, row, first } = items[i];
  const s = steps[step];
  const { [TEXT]: said, [WEIGHT]: weight, [LANE]: actor, [AT]: place } = s[ROWS][row];
  const text = word(said), at = word(place);
  const node = el("div", "row");
  node.style.top = `${i * ROW}px`;
  node.dataset.step = step;
  node.setAttribute("role", "option");
  node.setAttribute("aria-selected", String(step === current));
  if (first) { node.id = `row-${step}`; node.append(el("span", "n", String(step))); }
  if (marks.opens >= 0 && step >= marks.opens && step <= marks.closes) node.classList.add("window");
  const role = marks.accesses.get(step) && marks.accesses.get(step)[row];
  if (role) node.classList.add("access");
  if (step === current) node.classList.add("selected");
  if (first && step === marks.opens) note(node, "edge", "window opens");
  if (role) note(node, "access", role);
  if (row === s[ROWS].length - 1 && step === marks.closes) {
    note(node, "edge-end", run.window.staysOpen ? "window still open" : "window closes");
  }
  const t = el("span", weight || !run.relevant ? "t" : "t quiet");
  t.style.left = `${laneX(actor) + BARS}px`;
  t.style.width = `${lane - BARS - 8}px`;
  t.textContent = text;
  t.title = at ? `${text}\n${at}` : text;
  node.append(t);
  return node;
}

function note(node, className, text) {
  node.classList.add(className);
  const known = node.querySelector(".note");
  if (known) known.textContent += `, ${text}`; else node.append(el("span", "note", text));
}

function foldRow(i) {
  const { from, to } = items[i];
  const node = el("div", "row fold");
  node.style.top = `${i * ROW}px`;
  node.dataset.fold = from;
  node.setAttribute("role", "option");
  if (marks.opens >= 0 && from > marks.opens && to < marks.closes) node.classList.add("window");
  if (focusFold === from) node.classList.add("selected");
  const text = to === 0 ? "the set-up" : `${to - from + 1} steps, to ${to}`;
  const t = el("span", "t", text);
  t.style.left = `${LEFT + BARS}px`;
  node.append(el("span", "n", "⋮"), t);
  return node;
}

// A lock is drawn from the step that takes it to the one that drops it, beside its holder's lane.
const slots = new Map();
for (const bar of run.bars) {
  const used = slots.get(bar[0]) || [];
  let slot = used.findIndex((until) => until < bar[3]);
  if (slot < 0) { slot = used.length; }
  used[slot] = bar[4];
  slots.set(bar[0], used);
  bar[5] = slot % 3;
}

function bars(first, end) {
  const nodes = [];
  for (const [actor, kind, label, from, to, slot] of run.bars) {
    const top = place[from], bottom = place[to];
    if (bottom < first || top > end) continue;
    const node = el("div", `bar ${kind}`);
    node.style.left = `${laneX(actor) + slot * 6}px`;
    node.style.top = `${top * ROW + 2}px`;
    node.style.height = `${Math.max(1, bottom - top + 1) * ROW - 4}px`;
    node.title = `${label}: steps ${from} to ${to}`;
    nodes.push(node);
  }
  return nodes;
}

// ---- happens-before ------------------------------------------------------------------------------

const effects = Array.from(steps, () => []);
steps.forEach((s, n) => s[CAUSES].forEach((cause) => effects[cause].push(n)));

// Vector clocks: how many steps of each actor happened before a step, itself included.
const clocks = [], own = new Map();
steps.forEach((s, n) => {
  const clock = own.has(s[ACTOR]) ? own.get(s[ACTOR]).slice() : new Uint32Array(run.actors.length);
  for (const cause of s[CAUSES]) clocks[cause].forEach((count, i) => { if (count > clock[i]) clock[i] = count; });
  if (n > 0) clock[s[ACTOR]]++;
  clocks.push(clock);
  own.set(s[ACTOR], clock);
});

function arrows(first, end) {
  const svg = $("arrows"), top = first * ROW, height = (end - first) * ROW;
  svg.style.top = `${top}px`;
  svg.setAttribute("width", LEFT + lane * run.actors.length);
  svg.setAttribute("height", Math.max(height, 1));
  const parts = [
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6"'
    + ' orient="auto-start-reverse"><path d="M0,0 L8,4 L0,8 z" fill="context-stroke"/></marker></defs>'];
  const seen = new Set();
  const line = (cause, effect) => {
    const key = `${cause}>${effect}`;
    if (seen.has(key) || place[cause] === place[effect]) return;
    seen.add(key);
    const chosen = cause === current || effect === current;
    const y1 = place[cause] * ROW + ROW / 2 - top, y2 = place[effect] * ROW + ROW / 2 - top;
    if (y2 < -ROW || y1 > height + ROW) return;
    const forward = steps[cause][ACTOR] < steps[effect][ACTOR];
    // From the near edge of one lane to the near edge of the other: over no text of either.
    const left = (n) => laneX(steps[n][ACTOR]) + BARS - 4, right = (n) => left(n) + lane - BARS - 2;
    const x1 = forward ? right(cause) : left(cause), x2 = forward ? left(effect) : right(effect);
    const bend = forward ? 24 : -24;
    parts.push(
      `<path d="M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}" fill="none"`
      + ` stroke="var(--${chosen ? "accent" : "arrow"})" stroke-width="${chosen ? 2 : 1}"`
      + ` opacity="${chosen ? 1 : 0.45}" marker-end="url(#tip)"/>`);
  };
  const drawn = new Set();
  for (let i = first; i < end; i++) {
    const item = items[i];
    if (item.from !== undefined || drawn.has(item.step)) continue;
    drawn.add(item.step);
    for (const cause of steps[item.step][CAUSES]) line(cause, item.step);
    for (const effect of effects[item.step]) line(item.step, effect);
  }
  svg.innerHTML = parts.join("");
}

// ---- the machine's state at the current step -----------------------------------------------------

const state = new Map(); // thing -> Map(attribute -> value)
let stateAt = -1;
const lives = new Map(); // thing -> [[step, attribute, before, after]]
steps.forEach((s, n) => {
  for (const change of s[CHANGES]) {
    const [thing, attribute, before, after] = change.map(word);
    const name = thing;
    if (!lives.has(name)) lives.set(name, []);
    lives.get(name).push([n, attribute, before, after]);
    for (const value of [before, after]) {
      const pfn = pageIn(value);
      if (pfn === null || !/^(pte|TLB)/.test(name)) continue;
      const page = `page ${pfn}`;
      if (!lives.has(page)) lives.set(page, []);
      const life = lives.get(page), previous = life[life.length - 1];
      if (previous && previous[0] === n && previous[1] === name) continue;
      life.push([n, name, pageIn(before) === pfn ? before : null, pageIn(after) === pfn ? after : null]);
    }
  }
});

function pageIn(value) {
  const match = /^page (\d+)/.exec(value || "");
  return match ? Number(match[1]) : null;
}

function put(thing, attribute, value) {
  let attributes = state.get(thing);
  if (value === null) {
    if (attributes) { attributes.delete(attribute); if (!attributes.size) state.delete(thing); }
    return;
  }
  if (!attributes) state.set(thing, attributes = new Map());
  attributes.set(attribute, value);
}

function moveState(to) {
  while (stateAt < to) {
    stateAt++;
    for (const change of steps[stateAt][CHANGES]) {
      const [thing, attribute, , after] = change.map(word);
      put(thing, attribute, after);
    }
  }
  while (stateAt > to) {
    for (const change of [...steps[stateAt][CHANGES]].reverse()) {
      const [thing, attribute, before] = change.map(word);
      put(thing, attribute, before);
    }
    stateAt--;
  }
}

// ---- the side: this step, this page, what holds --------------------------------------------------

let shownPage = null;
function side(hovered) {
  const step = hovered ?? current, s = steps[step];
  moveState(step);
  $("step-title").textContent = step === 0 ? "set-up" : `step ${step} · ${run.actors[s[ACTOR]]} · ${s[T]} ns`;
  const what = [];
  for (const row of s[ROWS].slice(0, 20)) {
    what.push(el("div", "line", word(row[TEXT])));
    if (word(row[AT])) what.push(el("div", "line where", `    ${word(row[AT])}`));
  }
  if (s[ROWS].length > 20) what.push(el("div", "line where", `and ${s[ROWS].length - 20} more`));
  if (word(s[EFFECT])) what.push(el("div", "line where", `effect: ${word(s[EFFECT])}`));
  if (!s[ROWS].some((row) => word(row[AT]))) what.push(el("div", "line where", `    ${word(s[PLACE])}`));
  $("step-what").replaceChildren(...what);
  $("changes").replaceChildren(changesTable(s[CHANGES]));
  if (filter.page !== null) shownPage = filter.page;
  else {
    const pages = s[ROWS].flatMap((row) => row[PAGES]);
    if (pages.includes(run.frame)) shownPage = run.frame;
    else if (pages.length) shownPage = pages[0];
    else if (shownPage === null) shownPage = run.frame;
  }
  pagePanel(step);
  $("locks").replaceChildren(thingsTable((name) => /^(ilock|map \S+ lock)/.test(name)));
  $("ptes").replaceChildren(thingsTable((name) => /^(pte|TLB)/.test(name), 40));
  const clock = run.actors.map((actor, i) => [actor, clocks[step][i]]).filter(([, n]) => n);
  $("clock").replaceChildren(table(clock.map(([actor, n]) => [actor, `${n} steps`])));
}

function changesTable(changes) {
  if (!changes.length) return el("div", "none", "nothing");
  const body = el("table");
  for (const change of changes.slice(0, 60)) {
    const [thing, attribute, before, after] = change.map(word);
    const tr = el("tr");
    tr.append(el("td", "what", `${thing} ${attribute === "maps" ? "" : attribute}`));
    const td = el("td");
    if (before !== null) td.append(el("span", "was", before), " ");
    td.append(el("span", after === null ? "none" : "is", after === null ? "gone" : after));
    tr.append(td);
    body.append(tr);
  }
  return body;
}

function table(rows) {
  if (!rows.length) return el("div", "none", "none");
  const body = el("table");
  for (const [what, value] of rows) {
    const tr = el("tr");
    tr.append(el("td", "what", what), el("td", "", value));
    body.append(tr);
  }
  return body;
}

function thingsTable(wanted, most = 30) {
  const rows = [];
  for (const [name, attributes] of [...state].sort()) {
    if (wanted(name)) for (const [attribute, value] of attributes) {
      rows.push([name, attribute === "maps" ? value : `${attribute} ${value}`]);
    }
  }
  const cut = rows.slice(0, most);
  if (rows.length > most) cut.push(["", `and ${rows.length - most} more`]);
  return table(cut);
}

function pagePanel(step) {
  if (shownPage === null) {
    $("page-title").textContent = "page";
    $("page-state").replaceChildren(el("div", "none", "no page here"));
    $("page-life").replaceChildren();
    return;
  }
  const name = `page ${shownPage}`;
  $("page-title").textContent = `${name}: owner, queue, flags, PTEs`;
  const rows = [...(state.get(name) || [])];
  for (const [thing, attributes] of [...state].sort()) {
    const maps = attributes.get("maps");
    if (/^(pte|TLB)/.test(thing) && pageIn(maps) === shownPage) rows.push([thing, maps]);
  }
  $("page-state").replaceChildren(table(rows));
  const life = el("table");
  for (const [n, attribute, before, after] of lives.get(name) || []) {
    const tr = el("tr", n > step ? "future" : n === step ? "now" : "");
    const td = el("td");
    td.append(link(n));
    const value = el("td");
    if (before !== null && after === null) value.append(el("span", "was", before));
    else value.append(el("span", "is", after ?? ""));
    tr.append(td, el("td", "what", attribute), value);
    life.append(tr);
  }
  $("page-life").replaceChildren(life);
  const past = life.querySelectorAll("tr:not(.future)");
  const now = past[past.length - 1];
  if (now) $("page-life").scrollTop = now.offsetTop - $("page-life").offsetTop - 40;
}

function link(n) {
  const a = el("a", "step", String(n));
  a.href = `#step-${n}`;
  return a;
}

// ---- overview: the whole run in a strip ----------------------------------------------------------

function overview() {
  const canvas = $("overview"), ratio = window.devicePixelRatio || 1;
  const w = canvas.clientWidth, h = canvas.clientHeight;
  if (!w || !h) return;
  canvas.width = w * ratio; canvas.height = h * ratio;
  const c = canvas.getContext("2d"), css = getComputedStyle(document.documentElement);
  const colour = (name) => css.getPropertyValue(name).trim();
  c.scale(ratio, ratio);
  const scale = Math.min(8, h / Math.max(items.length, 1));
  const y = (step) => place[step] * scale;
  if (marks.opens >= 0) {
    c.fillStyle = colour("--window");
    c.fillRect(0, y(marks.opens), w, Math.max(2, y(marks.closes) - y(marks.opens)));
  }
  c.fillStyle = colour("--arrow");
  const width = (w - 4) / run.actors.length, every = Math.max(1, Math.floor(items.length / (h * 4)));
  for (let i = 0; i < items.length; i += every) {
    const item = items[i];
    if (item.from !== undefined) continue;
    c.fillRect(2 + steps[item.step][ACTOR] * width, i * scale, Math.max(2, width - 1), Math.max(1, scale - 1));
  }
  c.fillStyle = colour("--bad");
  for (const step of marks.accesses.keys()) c.fillRect(0, y(step), w, Math.max(2, scale));
  c.fillStyle = colour("--accent");
  c.fillRect(0, y(current), w, Math.max(2, Math.min(scale, 3)));
  const scroll = $("scroll");
  c.strokeStyle = colour("--accent");
  c.strokeRect(0.5, (scroll.scrollTop / ROW) * scale + 0.5, w - 1,
    Math.min(h - 1, Math.max(4, (scroll.clientHeight / ROW) * scale)));
}

$("overview").addEventListener("click", (event) => {
  const scale = Math.min(8, $("overview").clientHeight / Math.max(items.length, 1));
  const item = items[Math.min(items.length - 1, Math.floor(event.offsetY / scale))];
  if (item) select(item.from === undefined ? item.step : item.from);
});

// ---- moving --------------------------------------------------------------------------------------

function select(step, { link = true } = {}) {
  step = Math.max(0, Math.min(last, step));
  focusFold = null;
  if (items[place[step]] && items[place[step]].from !== undefined) {
    opened.add(items[place[step]].from);
    layout();
  }
  current = step;
  reveal(place[step]);
  draw();
  side();
  if (link) history.replaceState(null, "", `#step-${step}`);
}

function reveal(item) {
  const scroll = $("scroll"), top = item * ROW, margin = ROW * 4;
  if (top < scroll.scrollTop + margin) scroll.scrollTop = Math.max(0, top - margin);
  else if (top + margin > scroll.scrollTop + scroll.clientHeight) {
    scroll.scrollTop = top + margin - scroll.clientHeight;
  }
  const x = laneX(steps[current][ACTOR]);
  if (x < scroll.scrollLeft + LEFT || x + lane > scroll.scrollLeft + scroll.clientWidth) {
    scroll.scrollLeft = Math.max(0, x - LEFT);
  }
}

// Over the items: folds are stops, so that they can be opened without a mouse.
function move(delta) {
  const size = Math.abs(delta), sign = Math.sign(delta);
  let i = place[current];
  if (focusFold !== null) i = items.findIndex((item) => item.from === focusFold);
  for (let n = 0; n < size; n++) {
    let next = i + sign;
    while (items[next] && items[next].from === undefined && items[next].step === items[i]?.step) next += sign;
    while (sign < 0 && items[next] && items[next].from === undefined && !items[next].first) next--;
    if (!items[next]) break;
    i = next;
  }
  const item = items[i];
  if (!item) return;
  if (item.from === undefined) { select(item.step); return; }
  focusFold = item.from;
  reveal(i);
  draw();
}

function alongLane(sign) {
  for (let s = current + sign; s >= 0 && s <= last; s += sign) {
    if (steps[s][ACTOR] === steps[current][ACTOR] && steps[s][ROWS].length) { select(s); return; }
  }
}

function cycle(list) {
  if (!list.length) return;
  select(list[(list.indexOf(current) + 1) % list.length]);
}

function openFold(from) {
  opened.add(from);
  layout();
  select(from);
}

const keys = {
  ArrowDown: () => move(1), j: () => move(1), ArrowUp: () => move(-1), k: () => move(-1),
  PageDown: () => move(20), PageUp: () => move(-20),
  ArrowRight: () => alongLane(1), ArrowLeft: () => alongLane(-1),
  Home: () => select(0), End: () => select(last),
  a: () => cycle([...marks.accesses.keys()].sort((x, y) => x - y)),
  w: () => cycle([marks.opens, marks.closes].filter((s) => s >= 0)),
  c: () => { const causes = steps[current][CAUSES]; if (causes.length) select(Math.max(...causes)); },
  f: () => $("fold").click(), t: () => $("theme").click(), "?": () => $("keys").click(),
  "/": () => $("page").focus(), g: () => $("goto").focus(),
  Enter: () => { if (focusFold !== null) openFold(focusFold); },
  Escape: () => $("clear").click(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const typing = event.target.matches("input, select");
  if (typing && event.key !== "Escape") return;
  if (event.key === "Enter" && event.target.matches("button, a")) return;
  const act = keys[event.key];
  if (!act) return;
  event.preventDefault();
  act();
  if (event.key === "Escape") $("rows").focus();
});

// By where the mouse is, not by the node under it: rows are drawn anew whenever something moves.
function itemAt(event) {
  return items[Math.floor((event.clientY - $("canvas").getBoundingClientRect().top) / ROW)];
}
$("rows").addEventListener("click", (event) => {
  const item = itemAt(event);
  if (!item) return;
  $("rows").focus({ preventScroll: true });
  if (item.from === undefined) select(item.step); else openFold(item.from);
});
let hover = null;
$("rows").addEventListener("mousemove", (event) => {
  const item = itemAt(event);
  const step = item && item.from === undefined ? item.step : null;
  if (step === hover) return;
  hover = step;
  side(hover);
});
$("rows").addEventListener("mouseleave", () => { hover = null; side(); });
$("scroll").addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
window.addEventListener("resize", () => { lanes(); draw(); });
window.addEventListener("hashchange", fromLink);

function fromLink() {
  const match = /^#step-(\d+)$/.exec(location.hash);
  if (match) { select(Number(match[1]), { link: false }); return true; }
  return false;
}

// ---- filters -------------------------------------------------------------------------------------

function refilter() {
  opened.clear();
  focusFold = null;
  layout();
  if (items[place[current]] && items[place[current]].from !== undefined) {
    const near = items.findIndex((item) => item.from === undefined && item.step >= current);
    if (near >= 0) current = items[near].step;
  }
  $("fold").setAttribute("aria-pressed", String(filter.fold));
  reveal(place[current]);
  draw();
  side();
}

function number(input) {
  const text = input.value.trim();
  const value = text === "" ? null : Number(text);
  const wrong = value !== null && !Number.isInteger(value);
  input.classList.toggle("wrong", wrong);
  return wrong ? null : value;
}

const guests = [...new Set(steps.map((s) => word(s[GUEST])))].filter(Boolean).sort();
for (const guest of guests) $("guest").append(new Option(guest, guest));
$("guest").addEventListener("change", () => { filter.guest = $("guest").value; refilter(); });
$("page").addEventListener("input", () => { filter.page = number($("page")); refilter(); });
$("va").addEventListener("input", () => { filter.va = number($("va")); refilter(); });
$("goto").addEventListener("change", () => {
  const step = number($("goto"));
  if (step !== null) { select(step); $("rows").focus(); }
});
$("fold").addEventListener("click", () => {
  filter.fold = least > RELEVANT || !filter.fold; // from the accesses to all that matters, to everything
  least = RELEVANT;
  refilter();
});
$("clear").addEventListener("click", () => {
  for (const id of ["page", "va", "goto"]) { $(id).value = ""; $(id).classList.remove("wrong"); }
  $("guest").value = "";
  Object.assign(filter, { guest: "", page: null, va: null });
  refilter();
});
$("fold").hidden = !run.relevant;
$("keys").addEventListener("click", () => $("help").showModal());
$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  draw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

// ---- head ----------------------------------------------------------------------------------------

$("invariant").textContent = run.invariant ? `invariant ${run.invariant}` : "";
$("message").textContent = run.message;
for (const access of run.accesses) {
  const tr = el("tr");
  const at = el("td");
  at.append(link(access.step));
  tr.append(el("td", "", access.role), el("td", "", access.actor), el("td", "", access.function),
    el("td", "", access.what), at, el("td", "", access.where));
  $("accesses").append(tr);
}
for (const [name, text, code] of run.facts) {
  const dd = el("dd");
  dd.append(code ? el("code", "", text) : text);
  $("facts").append(el("dt", "", name), dd);
}

layout();
lanes();
// The two accesses, and where the window opens, in one screen: with as much of the story around them
// as there is room for. The later access is the harm.
function begin() {
  const told = run.accesses.map((access) => access.step).filter((step) => step > 0);
  const wanted = marks.opens > 0 ? [...told, marks.opens] : told;
  if (!wanted.length) return select(marks.opens >= 0 ? marks.opens : 1, { link: false });
  const low = Math.min(...wanted), high = Math.max(...(told.length ? told : wanted));
  const room = Math.floor($("scroll").clientHeight / ROW) - 9;
  while (least < ESSENTIAL && place[high] - place[low] > room) {
    least++;
    layout();
  }
  $("scroll").scrollTop = Math.max(0, (place[low] - 1) * ROW);
  select(high, { link: false });
}
if (!fromLink()) begin();
$("rows").focus({ preventScroll: true });
