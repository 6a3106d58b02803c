// The table: rows of the chosen kind, sorted by a click on a heading, filtered by text.

const FIRST_ROWS = 50;
const MORE_ROWS = 500;

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// Text that may be broken after a slash, a dot or an underscore.
function breakable(tag, text, className) {
  const made = element(tag, undefined, className);
  for (const part of text.split(/(?<=[/._:])/)) made.append(part, document.createElement("wbr"));
  return made;
}

const TEXT = {format: (value) => value, text: true};
const FIGURES = {
  macs: {title: "MACs", format: count},
  flops: {title: "FLOPs", format: count},
  transcendentals: {title: "exp etc.", format: count},
  parameters: {title: "parameters", format: count},
  bytes: {title: "bytes", format: bytes},
  intensity: {title: "FLOPs/byte", format: count},
  nodes: {title: "nodes", format: exact},
  seconds: {title: "predicted", format: seconds},
  low: {title: "low", format: seconds},
  high: {title: "high", format: seconds},
  rate: {title: "FLOP/s", format: (value) => rate(value, "")},
  step: {title: "step", format: exact},
  name: {title: "name", ...TEXT},
  op: {title: "op type", ...TEXT},
  bound: {title: "limited by", ...TEXT},
};
const COLUMNS = {
  nodes: [
    "step", "name", "op", "macs", "flops", "transcendentals", "parameters", "bytes", "intensity",
  ],
  groups: ["name", "nodes", "macs", "flops", "parameters", "bytes", "intensity"],
  executed: ["step", "name", "op", "seconds", "low", "high", "flops", "bytes", "rate", "bound"],
  executedGroups: ["name", "nodes", "seconds", "flops", "bytes", "rate"],
};

function objects(columns) {
  const keys = Object.keys(columns);
  return columns.name.map((_, at) => {
    const row = {step: at + 1};
    for (const key of keys) row[key] = columns[key][at];
    return row;
  });
}

function grouped(rows, namesOf) {
  const found = new Map();
  for (const row of rows) {
    for (const name of namesOf(row)) {
      if (!found.has(name)) found.set(name, {name, nodes: 0, seconds: 0, flops: 0, bytes: 0});
      const group = found.get(name);
      group.nodes += 1;
      for (const key of ["seconds", "flops", "bytes"]) group[key] += row[key];
    }
  }
  return [...found.values()];
}

function withParents(path) {
  const levels = path === "" ? [] : path.split("/");
  return ["", ...levels.map((_, depth) => levels.slice(0, depth + 1).join("/"))];
}

// The rows to show, and which columns they have.
function tableRows(model, which, metric) {
  let rows;
  let columns;
  if (metric.key === "seconds") {
    const nodes = objects(model.executed);
    columns = which === "nodes" ? COLUMNS.executed : COLUMNS.executedGroups;
    if (which === "nodes") rows = nodes;
    else if (which === "types") rows = grouped(nodes, (row) => [row.op]);
    else rows = grouped(nodes, (row) => withParents(row.module));
    for (const row of rows) row.rate = row.flops > 0 ? row.flops / row.seconds : null;
  } else {
    columns = which === "nodes" ? COLUMNS.nodes : COLUMNS.groups;
    rows = which === "nodes" ? objects(model.nodes) : model[which].map((group) => ({...group}));
    for (const row of rows) row.intensity = ratio(row.flops, row.bytes);
  }
  columns = columns.filter((key) => FIGURES[key].text || rows.some((row) => row[key]));
  for (const row of rows) {
    if (which === "modules" && row.name === "") row.name = "(whole model)";
    row.haystack = [row.name, row.op, row.module].filter(Boolean).join(" ").toLowerCase();
  }
  return {rows, columns};
}

function compare(key, descending) {
  const sign = descending ? -1 : 1;
  return (a, b) => {
    const x = a[key];
    const y = b[key];
    if (x === y) return 0;
    if (x === null) return 1;
    if (y === null) return -1;
    if (FIGURES[key].text) return sign * (x < y ? -1 : 1);
    return sign * (x - y);
  };
}

class Table {
  constructor() {
    this.sort = null;
    this.limit = FIRST_ROWS;
    this.filter = document.getElementById("filter");
    this.more = document.getElementById("more");
    this.filter.addEventListener("input", () => this.draw());
    this.more.addEventListener("click", () => {
      this.limit += MORE_ROWS;
      this.draw();
    });
  }

  show(model, which, metric) {
    this.metric = metric;
    this.which = which;
    this.whole = metric.key === "seconds" ? model.latency.seconds : model.total[metric.key];
    Object.assign(this, tableRows(model, which, metric));
    this.largest = this.rows.reduce((most, row) => Math.max(most, row[metric.key]), 0);
    this.sort = {key: metric.key, descending: true};
    this.limit = FIRST_ROWS;
    this.draw();
  }

  pick(text) {
    this.filter.value = text;
    this.draw();
    document.getElementById("tables").scrollIntoView({block: "center"});
  }

  draw() {
    const wanted = this.filter.value.trim().toLowerCase();
    const found = this.rows.filter((row) => row.haystack.includes(wanted));
    found.sort(compare(this.sort.key, this.sort.descending));
    const shown = found.slice(0, this.limit);
    this.drawHead();
    document.querySelector("#table tbody").replaceChildren(...shown.map((row) => this.row(row)));
    document.getElementById("matches").textContent =
      `${exact(found.length)} of ${exact(this.rows.length)} rows` +
      (shown.length < found.length ? `, the first ${exact(shown.length)} shown` : "");
    const left = found.length - shown.length;
    this.more.hidden = left === 0;
    this.more.textContent = `Show ${exact(Math.min(left, MORE_ROWS))} more`;
  }

  // On a narrow screen: the name, the figure that counts, its share.
  classOf(key) {
    const classes = [];
    if (!FIGURES[key].text) classes.push("number");
    if (key === "name") classes.push("name");
    else if (FIGURES[key].text) classes.push("text");
    if (key !== "name" && key !== this.metric.key) classes.push("wide");
    return classes.join(" ");
  }

  drawHead() {
    const line = element("tr");
    for (const key of this.columns) {
      const cell = element("th", undefined, this.classOf(key));
      cell.scope = "col";
      const sorted = this.sort.key === key;
      cell.setAttribute("aria-sort",
        !sorted ? "none" : this.sort.descending ? "descending" : "ascending");
      const button = element("button", FIGURES[key].title);
      button.type = "button";
      button.dataset.key = key;
      button.addEventListener("click", () => {
        const first = !FIGURES[key].text && key !== "step";
        this.sort = {key, descending: sorted ? !this.sort.descending : first};
        this.draw();
        document.querySelector(`#table thead [data-key="${key}"]`).focus();
      });
      cell.append(button);
      line.append(cell);
    }
    const share = element("th", "share");
    share.title = `of the model's ${this.metric.title}`;
    share.scope = "col";
    line.append(share);
    document.querySelector("#table thead").replaceChildren(line);
  }

  row(row) {
    const line = element("tr");
    for (const key of this.columns) {
      const text = FIGURES[key].format(row[key]);
      const cell = element("td", undefined, this.classOf(key));
      cell.append(FIGURES[key].text ? breakable("span", text) : text);
      if (key === "name") cell.title = text;
      if (!FIGURES[key].text && row[key] !== null && FIGURES[key].format !== exact) {
        cell.title = String(row[key]);
      }
      if (key === "name" && this.which === "nodes") cell.append(element("small", details(row)));
      line.append(cell);
    }
    const share = this.whole > 0 ? row[this.metric.key] / this.whole : NaN;
    const cell = element("td", undefined, "share");
    const box = element("div");
    const track = element("span", undefined, "track");
    const bar = element("i");
    bar.style.width = `${this.largest > 0 ? 100 * row[this.metric.key] / this.largest : 0}%`;
    track.append(bar);
    box.append(track, element("span", percent(share), "figure"));
    cell.append(box);
    line.append(cell);
    return line;
  }
}

function details(row) {
  const parts = narrow() ? [row.op] : [];
  if (row.kind) parts.push(row.kind);
  if (row.shape) parts.push(row.shape);
  if (row.executions !== undefined && row.executions !== 1) {
    parts.push(row.executions === 0 ? "never runs" : `runs ${exact(row.executions)} times`);
  }
  if (row.counted === false) parts.push("not counted");
  if (row.note) parts.push(row.note);
  return parts.join(" \u00b7 ");
}
