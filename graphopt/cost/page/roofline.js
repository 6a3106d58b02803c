// Each node as a point: how much it computes for each byte it moves, and how fast or how much.

const MOST_POINTS = 2000;

// The ceilings: a slope for each bandwidth, up to the highest peak, and a level for each peak.
function roofs(machine, from, to, colours) {
  const fastest = machine.bandwidths.reduce((most, one) => Math.max(most, one.bytes), 0);
  const highest = machine.peaks.reduce((most, one) => Math.max(most, one.flops), 0);
  const end = machine.bandwidths.reduce((most, one) => Math.max(most, highest / one.bytes), to);
  const line = (name, x, y, named, position) => ({
    type: "scatter", mode: narrow() ? "lines" : "lines+text", x, y,
    showlegend: false, hoverinfo: "text",
    line: {color: colours.quiet, width: 1.5},
    text: named.map((at) => at ? name : ""), textposition: position,
    textfont: {color: colours.quiet, size: 12}, hovertext: [name, name], cliponaxis: false,
  });
  return [
    ...machine.bandwidths.map(({name, bytes: speed}) => line(
      `${label(name, 30)} ${rate(speed, "B/s")}`, [from, highest / speed],
      [from * speed, highest], [true, false], "bottom right")),
    ...machine.peaks.map(({name, flops}) => line(
      `${label(name, 30)} ${rate(flops, "FLOP/s")}`, [flops / fastest, end],
      [flops, flops], [false, true], "top left")),
  ];
}

function drawRoofline(model, machine, appearance, onPick) {
  const colours = theme();
  const timed = model.latency !== null;
  const rows = timed ? model.executed : model.nodes;
  const weights = timed ? rows.seconds : rows.flops;
  const whole = weights.reduce((a, b) => a + b, 0);
  const height = (at) => timed ? rows.flops[at] / rows.seconds[at] : rows.flops[at];
  const shown = rows.name.map((_, at) => at)
    .filter((at) => rows.flops[at] > 0 && rows.bytes[at] > 0 && height(at) > 0 &&
      Number.isFinite(height(at)));
  const left = rows.name.length - shown.length;
  shown.sort((a, b) => weights[b] - weights[a] || a - b);
  const points = shown.slice(0, MOST_POINTS);

  const groups = new Map([...appearance.keys()].map((name) => [name, []]));
  groups.set("other", []);
  for (const at of points) {
    const op = kind(rows.op[at]);
    groups.get(appearance.has(op) ? op : "other").push(at);
  }
  const hover = (at) => [
    `<b>${label(rows.name[at])}</b>`,
    label(rows.op[at]) + (timed ? "" : `  ${label(rows.shape[at])}`),
    ...(timed ? [
      `${seconds(rows.seconds[at])} (${seconds(rows.low[at])} to ${seconds(rows.high[at])}), ` +
        `${percent(weights[at] / whole)}`,
      `${rate(height(at), "FLOP/s")}, limited by ${label(rows.bound[at])}`,
      `kernel class ${label(rows.kind[at])}`,
    ] : [`${count(rows.macs[at])} MACs, ${percent(weights[at] / whole)} of the FLOPs`]),
    `${count(rows.flops[at])} FLOPs, ${bytes(rows.bytes[at])} moved`,
    `${count(ratio(rows.flops[at], rows.bytes[at]))} FLOPs per byte`,
  ].join("<br>");
  const traces = [];
  const intensities = points.map((at) => rows.flops[at] / rows.bytes[at]);
  if (timed && machine && points.length) {
    const from = intensities.reduce((a, b) => Math.min(a, b)) / 3;
    const to = intensities.reduce((a, b) => Math.max(a, b)) * 3;
    traces.push(...roofs(machine, from, to, colours));
  }
  // What is most is drawn last, on top.
  for (const [name, members] of [...groups].reverse()) {
    if (!members.length) continue;
    const look = appearance.get(name) || OTHER;
    const ordered = [...members].reverse();
    traces.push({
      type: "scatter", mode: "markers", name: label(name, narrow() ? 16 : 28), customdata: ordered,
      x: ordered.map((at) => rows.flops[at] / rows.bytes[at]), y: ordered.map(height),
      marker: {
        color: look.colour, symbol: look.shape, opacity: 0.8,
        // The area is the share of the whole.
        size: ordered.map((at) => 7 + 33 * Math.sqrt(weights[at] / whole)),
        line: {color: colours.paper, width: 0.5},
      },
      hoverinfo: "text", hovertext: ordered.map(hover),
    });
  }
  draw("roofline", traces, {
    height: narrow() ? 380 : 440, hovermode: "closest", showlegend: true,
    legend: {
      orientation: "h", y: 1.02, yanchor: "bottom", x: 0,
      traceorder: "reversed", itemsizing: "constant",
    },
    xaxis: axis(colours, {
      type: "log", title: "arithmetic intensity, FLOPs per byte moved", tickformat: "~g",
      minor: {showgrid: false}, dtick: 1,
    }),
    yaxis: axis(colours, {
      type: "log", title: timed ? "FLOP/s" : "FLOPs", tickformat: "~s", dtick: narrow() ? 2 : 1,
    }),
  });
  document.getElementById("roofline-title").textContent =
    timed ? "Roofline" : "Work and arithmetic intensity";
  const parts = !points.length ? [] : [
    timed
      ? "Each point is a node as ONNX Runtime will run it; its area is its share of the time."
      : "Each point is a node; its area is its share of the FLOPs. To the left, memory limits a " +
        "node; to the right, arithmetic does.",
  ];
  if (timed && machine) parts.push(`The lines are the ceilings of ${machine.name}.`);
  if (points.length < shown.length) {
    const rest = shown.slice(MOST_POINTS).reduce((sum, at) => sum + weights[at], 0);
    parts.push(`The ${exact(MOST_POINTS)} largest of ${exact(shown.length)} are drawn; the ` +
      `others make up ${percent(rest / whole)}.`);
  }
  if (left) parts.push(`Not in it: ${plural(left, "node")} without arithmetic.`);
  caption("roofline", parts.join(" "));
  onClick("roofline", (point) => {
    if (point.customdata !== undefined) onPick(rows.name[point.customdata]);
  });
}
