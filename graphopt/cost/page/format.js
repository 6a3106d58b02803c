// Figures as text, and names from a model made harmless for plotly's labels.

const NONE = "\u2013";

function exact(number) {
  return number === null ? NONE : number.toLocaleString("en-US");
}

function scaled(number, step, units, digits) {
  let place = 0;
  while (Math.abs(number) >= step * 0.9995 && place < units.length - 1) {
    number /= step;
    place += 1;
  }
  return [number.toPrecision(digits), units[place]];
}

// 9,408 and 300.8 M: exact while that is short, then four figures.
function count(number) {
  if (number === null) return NONE;
  if (Math.abs(number) < 10000) {
    return Number.isInteger(number) ? exact(number) : String(Number(number.toPrecision(3)));
  }
  return scaled(number, 1000, ["", "k", "M", "G", "T", "P", "E"], 4).join("\u00a0");
}

function bytes(number) {
  if (number === null) return NONE;
  if (number < 1000) return `${number}\u00a0B`;
  return scaled(number, 1000, ["B", "kB", "MB", "GB", "TB", "PB"], 3).join("\u00a0");
}

function seconds(number) {
  if (number === null) return NONE;
  if (number === 0) return "0\u00a0s";
  if (number >= 1) return `${number.toPrecision(3)}\u00a0s`;
  if (number >= 1e-3) return `${(number * 1e3).toPrecision(3)}\u00a0ms`;
  return `${(number * 1e6).toPrecision(number < 1e-6 ? 2 : 3)}\u00a0\u00b5s`;
}

function rate(number, unit) {
  if (number === null || !Number.isFinite(number)) return NONE;
  return scaled(number, 1000, ["", "k", "M", "G", "T", "P"], 3).join("\u00a0") + unit;
}

function percent(share) {
  if (!Number.isFinite(share)) return NONE;
  if (share === 0) return "0%";
  const figure = share * 100;
  if (figure < 0.05) return "<0.1%";
  return `${figure.toFixed(1)}%`;
}

function ratio(flops, moved) {
  return moved > 0 ? flops / moved : null;
}

function plural(number, word) {
  return `${exact(number)} ${word}${number === 1 ? "" : "s"}`;
}

// The middle is what a long name can best do without.
function shorten(name, length) {
  if (name.length <= length) return name;
  const head = Math.ceil((length - 1) / 2);
  return `${name.slice(0, head)}\u2026${name.slice(name.length - (length - 1 - head))}`;
}

// plotly reads some HTML in its labels; a name from a model shall be read as it is.
function label(name, length = 60) {
  return shorten(name.replace(/\s+/g, " "), length)
    .replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

const METRICS = [
  {key: "seconds", title: "predicted time", format: seconds},
  {key: "macs", title: "MACs", format: count},
  {key: "flops", title: "FLOPs", format: count},
  {key: "bytes", title: "bytes moved", format: bytes},
  {key: "parameters", title: "parameters", format: count},
];
