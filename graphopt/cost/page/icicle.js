// The cost by module, from the outermost to single nodes.

const SMALLEST = 0.002;

function block(name, path) {
  return {name, path, value: 0, nodes: 0, children: new Map(), leaf: null};
}

// A leaf's name without the path that stands above it anyway; TensorFlow's converter joins the
// names of all it fused, and the first decides where the node stands.
function lastPart(name) {
  const [first] = name.split(";", 1);
  return first.slice(first.lastIndexOf("/") + 1) || first || name;
}

// A tree of modules; where the model has none, of op types.
function treeOf(rows, weights) {
  const modular = rows.module.some((path) => path !== "");
  const root = block("model", "");
  rows.name.forEach((name, at) => {
    const path = modular ? rows.module[at] : kind(rows.op[at]);
    const levels = path === "" ? [] : path.split("/");
    let place = root;
    levels.forEach((level, depth) => {
      place.value += weights[at];
      place.nodes += 1;
      if (!place.children.has(level)) {
        place.children.set(level, block(level, levels.slice(0, depth + 1).join("/")));
      }
      place = place.children.get(level);
    });
    place.value += weights[at];
    place.nodes += 1;
    // ONNX Runtime's own names say how it came to a node, not what that is.
    const title = rows.kind ? kind(rows.op[at]) : lastPart(name);
    const leaf = {...block(title, name), value: weights[at], nodes: 1, leaf: at};
    place.children.set(at, leaf);
  });
  return {root, modular};
}

// A module whose cost is all in one child stands in one block with it: `2/conv`.
function shortenChains(place) {
  for (const [key, child] of place.children) {
    let last = child;
    const names = [child.name];
    for (;;) {
      const costly = [...last.children.values()].filter((one) => one.value > 0);
      if (costly.length !== 1) break;
      [last] = costly;
      names.push(last.name);
    }
    place.children.set(key, {...last, name: names.join("/")});
    shortenChains(last);
  }
}

function depthOf(place) {
  return 1 + [...place.children.values()].reduce((most, one) => Math.max(most, depthOf(one)), 0);
}

// The blocks as plotly wants them, and what a click on each picks.
function blocksOf(root, rows, metric, appearance, moduleColour, letters) {
  const out = {ids: [], labels: [], parents: [], values: [], text: [], hover: [], colour: []};
  const picks = [];
  let merged = 0;
  const figures = (value) =>
    `${metric.format(value)} ${metric.title}<br>${percent(value / root.value)} of the model`;
  const add = (parent, name, value, own, hover, colour, pick) => {
    out.ids.push(String(out.ids.length));
    out.labels.push(label(name, letters));
    out.parents.push(parent);
    out.values.push(own);
    out.text.push(percent(value / root.value));
    out.hover.push(hover);
    out.colour.push(colour);
    picks.push(pick);
    return out.ids[out.ids.length - 1];
  };
  const visit = (place, parent) => {
    if (place.leaf !== null) {
      const op = rows.op[place.leaf];
      const shape = rows.shape ? `<br>${label(rows.shape[place.leaf])}` : "";
      add(parent, place.name, place.value, place.value,
        `<b>${label(place.path)}</b><br>${label(op)}${shape}<br>${figures(place.value)}`,
        (appearance.get(kind(op)) || OTHER).colour, place.path);
      return;
    }
    const id = add(parent, place.name, place.value, 0,
      `<b>${label(place.path || "whole model")}</b><br>${plural(place.nodes, "node")}<br>` +
      figures(place.value), moduleColour, null);
    let small = 0;
    let number = 0;
    for (const child of place.children.values()) {
      if (child.value >= root.value * SMALLEST) {
        visit(child, id);
      } else if (child.value > 0) {
        small += child.value;
        number += child.nodes;
      }
    }
    if (number > 0) {
      merged += number;
      add(id, plural(number, "small node"), small, small,
        `<b>${plural(number, "node")}</b>, each below ${percent(SMALLEST)} of the model<br>` +
        figures(small), OTHER.colour, null);
    }
  };
  if (root.value > 0) visit(root, "");
  return {out, picks, merged};
}

function drawIcicle(model, rows, weights, metric, appearance, onPick) {
  const colours = theme();
  const {root, modular} = treeOf(rows, weights);
  shortenChains(root);
  const levels = narrow() ? 3 : 5;
  // About how many letters fit in a block beside the per cent.
  const width = document.getElementById("icicle").clientWidth / Math.min(levels, depthOf(root));
  const letters = Math.max(8, Math.floor(width / 7) - 8);
  const {out, picks, merged} = blocksOf(root, rows, metric, appearance, colours.module, letters);
  draw("icicle", [{
    type: "icicle", ids: out.ids, labels: out.labels, parents: out.parents, values: out.values,
    branchvalues: "remainder", sort: false, maxdepth: levels,
    text: out.text, texttemplate: "%{label}  %{text}", hovertext: out.hover, hoverinfo: "text",
    tiling: {orientation: "h", pad: 1}, pathbar: {visible: true, thickness: 24},
    marker: {colors: out.colour, line: {color: colours.paper, width: 0.5}},
    leaf: {opacity: 1}, textfont: {size: 12},
  }], {
    height: narrow() ? 460 : 520, margin: {l: 0, r: 0, t: 4, b: 0},
    uniformtext: {minsize: 11, mode: "hide"},
  });
  const parts = [
    root.value > 0
      ? `The ${metric.title} of ${plural(rows.name.length, "node")}, in the order in which they ` +
        "run. Click a block to enlarge it."
      : `No node has any ${metric.title}.`,
  ];
  if (!modular) parts.push("The model names no modules: its nodes stand under their op types.");
  if (merged) parts.push(`Merged: ${plural(merged, "node")} below ${percent(SMALLEST)}.`);
  if (metric.key === "parameters" && rows.owned.some((own, at) => own !== rows.parameters[at])) {
    parts.push("A parameter that several nodes read stands at the first of them.");
  }
  if (metric.key === "seconds") {
    const beside = model.latency.seconds - root.value;
    parts.push(`Beside them a run takes ${seconds(Math.max(0, beside))}.`);
  }
  caption("icicle", parts.join(" "));
  onClick("icicle", (point) => {
    if (picks[point.pointNumber]) onPick(picks[point.pointNumber]);
  });
}
