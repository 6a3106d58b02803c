// The headline, the controls, and what is redrawn when one of them is used.

const DATA = JSON.parse(document.getElementById("data").textContent);
const MODELS = DATA.models;
const LOOKS = appearances(MODELS);
const SHOWN = METRICS.filter((metric) => metric.key === "seconds"
  ? MODELS.every((model) => model.latency !== null)
  : MODELS.some((model) => model.total[metric.key] > 0) || metric.key === "flops");
const STATE = {
  model: MODELS.length - 1,
  metric: SHOWN.find((metric) => metric.key === "seconds") || SHOWN[0],
  table: "nodes",
};
const TABLE = new Table();

function weightsOf(model, metric) {
  if (metric.key === "seconds") return model.executed.seconds;
  return metric.key === "parameters" ? model.nodes.owned : model.nodes[metric.key];
}

function headlines(model) {
  const whole = model.total;
  const moved = ratio(whole.flops, whole.bytes);
  const dtypes = Object.entries(whole.dtypes)
    .map(([name, size]) => `${name.toLowerCase()} ${bytes(size)}`);
  const figures = [
    ["MACs", whole.macs, count, exact(whole.macs)],
    ["FLOPs", whole.flops, count,
      whole.transcendentals
        ? `and ${count(whole.transcendentals)} of exp, tanh, \u2026` : exact(whole.flops)],
    ["parameters", whole.parameters, count, dtypes.join(", ")],
    ["parameter bytes", whole.parameter_bytes, bytes, `${exact(whole.parameter_bytes)} B`],
    ["bytes moved", whole.bytes, bytes, moved === null ? "" : `${count(moved)} FLOPs per byte`],
    ["peak activations", whole.peak_in_place, bytes, `${bytes(whole.peak)} without reuse`],
  ];
  if (model.latency !== null) {
    const {seconds: predicted, low, high} = model.latency;
    figures.unshift(
      ["predicted latency", predicted, seconds, `${seconds(low)} to ${seconds(high)}`]);
  }
  return figures;
}

function drawCards(model) {
  const list = element("dl", undefined, "cards");
  for (const [title, value, format, detail] of headlines(model)) {
    const card = element("div");
    card.append(element("dt", title), element("dd", format(value), "value"),
      element("dd", detail, "detail"));
    list.append(card);
  }
  document.getElementById("headline").replaceChildren(list);
}

// Less is better in every figure here.
function change(before, after) {
  if (before === after) return ["same", ""];
  if (!before || !after) return [NONE, ""];
  const factor = after / before;
  const sign = factor < 1 ? "\u2212" : "+";
  return [sign + percent(Math.abs(factor - 1)), factor < 1 ? "better" : "worse"];
}

function drawComparison(before, after) {
  const table = element("table", undefined, "comparison");
  const head = element("tr");
  head.append(element("th", ""));
  for (const title of [before.label, after.label, "change", "ratio"]) {
    const cell = element("th", shorten(title, 40), title === "ratio" ? "number wide" : "number");
    cell.title = title;
    cell.scope = "col";
    head.append(cell);
  }
  const rows = [["nodes", before.total.nodes, exact, ""], ...headlines(before)];
  const others = [["nodes", after.total.nodes, exact, ""], ...headlines(after)];
  const body = element("tbody");
  for (const [title, value, format] of rows) {
    const other = others.find((row) => row[0] === title);
    if (!other) continue;
    const line = element("tr");
    const name = element("th", title);
    name.scope = "row";
    const [text, className] = change(value, other[1]);
    const factor = value ? other[1] / value : null;
    const times = factor === null ? NONE
      : factor < 100 ? factor.toPrecision(3) : count(Math.round(factor));
    line.append(name,
      element("td", format(value), "number"), element("td", format(other[1]), "number"),
      element("td", text, `number ${className}`),
      element("td", times, "number wide"));
    body.append(line);
  }
  const top = element("thead");
  top.append(head);
  table.append(top, body);
  document.getElementById("headline").replaceChildren(table);
}

function choice(id, name, options, chosen, onChange) {
  const box = document.getElementById(id);
  options.forEach(([value, title]) => {
    const holder = element("label");
    const input = element("input");
    input.type = "radio";
    input.name = name;
    input.value = value;
    input.checked = value === chosen;
    input.addEventListener("change", () => onChange(value));
    holder.append(input, element("span", title));
    box.append(holder);
  });
  box.hidden = options.length < 2;
}

function pick(text) {
  TABLE.pick(text);
}

function drawShares() {
  const model = MODELS[STATE.model];
  const {metric} = STATE;
  const rows = metric.key === "seconds" ? model.executed : model.nodes;
  drawIcicle(model, rows, weightsOf(model, metric), metric, LOOKS, pick);
  drawTypes(MODELS, metric, LOOKS, pick);
}

function drawAll() {
  drawShares();
  drawRoofline(MODELS[STATE.model], DATA.machine, LOOKS, pick);
  drawMemory(MODELS);
  drawTable();
}

function drawTable() {
  TABLE.show(MODELS[STATE.model], STATE.table, STATE.metric);
}

function drawNotes() {
  const lines = MODELS.flatMap((model) =>
    model.notes.map((note) => MODELS.length > 1 ? `${model.label}: ${note}` : note));
  document.getElementById("notes").hidden = lines.length === 0;
  document.querySelector("#notes ul").replaceChildren(...lines.map((line) => element("li", line)));
}

function start() {
  const sizes = MODELS.map((model) =>
    `${plural(model.total.nodes, "node")} of ${plural(model.types.length, "op type")}`);
  const {latency} = MODELS[0];
  const conditions = latency === null ? "" :
    `; latency predicted for ${latency.machine}, ${plural(latency.threads, "thread")}`;
  document.getElementById("subtitle").textContent = sizes.join(" \u2192 ") + conditions;
  if (MODELS.length > 1) drawComparison(...MODELS);
  else drawCards(MODELS[0]);
  choice("models", "model", MODELS.map((model, at) => [String(at), model.label]),
    String(STATE.model), (value) => {
      STATE.model = Number(value);
      drawAll();
    });
  choice("metrics", "metric", SHOWN.map((metric) => [metric.key, metric.title]),
    STATE.metric.key, (value) => {
      STATE.metric = METRICS.find((metric) => metric.key === value);
      drawShares();
      drawTable();
    });
  choice("tables", "table", [["nodes", "nodes"], ["modules", "modules"], ["types", "op types"]],
    STATE.table, (value) => {
      STATE.table = value;
      drawTable();
    });
  drawNotes();
  drawAll();
  for (const query of ["(prefers-color-scheme: dark)", "(max-width: 639px)"]) {
    window.matchMedia(query).addEventListener("change", drawAll);
  }
}

start();
