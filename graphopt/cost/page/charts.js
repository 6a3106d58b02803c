// What all charts share, and the two simple ones: bars by op type, and memory over the schedule.

// Colours that stay apart under the common colour blindnesses; shapes tell them apart as well.
const COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"];
const SHAPES = ["circle", "square", "diamond", "triangle-up", "cross", "star"];
const OTHER = {colour: "#8b95a1", shape: "hexagon"};
const MOST_BARS = 12;

function theme() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    paper: colour("paper"), panel: colour("panel"), line: colour("line"), ink: colour("ink"),
    quiet: colour("quiet"), accent: colour("accent"), bar: colour("bar"), module: colour("module"),
  };
}

function narrow() {
  return window.innerWidth < 640;
}

function axis(colours, more) {
  return {
    gridcolor: colours.line, linecolor: colours.line, zerolinecolor: colours.line,
    tickfont: {color: colours.quiet, size: 12}, automargin: true, ...more,
    title: {text: more.title || "", font: {color: colours.quiet, size: 13}, standoff: 8},
  };
}

// A chart without anything to draw is taken away; its caption says why.
function draw(id, traces, layout) {
  const colours = theme();
  const place = document.getElementById(id);
  place.hidden = traces.every((trace) => (trace.ids || trace.x).length === 0);
  if (place.hidden) {
    Plotly.purge(place);
    return;
  }
  Plotly.react(place, traces, {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: {family: getComputedStyle(document.body).fontFamily, size: 13, color: colours.ink},
    margin: {l: 8, r: 8, t: 8, b: 8},
    hoverlabel: {
      bgcolor: colours.paper, bordercolor: colours.line, font: {color: colours.ink, size: 13},
      align: "left", namelength: -1,
    },
    // A finger that scrolls the page must not be taken for one that marks a range.
    dragmode: narrow() ? false : "zoom",
    showlegend: false,
    ...layout,
  }, {displayModeBar: false, responsive: true, doubleClickDelay: 400, typesetMath: false});
}

// Clicks on a chart go to the handler given last, however often it is drawn.
function onClick(id, handle) {
  const place = document.getElementById(id);
  if (place.hidden) return;
  place.removeAllListeners("plotly_click");
  place.on("plotly_click", (event) => handle(event.points[0]));
}

function caption(id, text) {
  document.getElementById(`${id}-caption`).textContent = text;
}

function kind(opType) {
  return opType.slice(opType.lastIndexOf(".") + 1);
}

// The op types that do most, over all models, so that a colour means one thing on the page.
function appearances(models) {
  const weight = new Map();
  for (const model of models) {
    for (const key of ["flops", "bytes"]) {
      const whole = model.total[key] || 1;
      for (const group of model.types) {
        const name = kind(group.name);
        weight.set(name, (weight.get(name) || 0) + group[key] / whole);
      }
    }
  }
  const first = [...weight].sort((a, b) => b[1] - a[1]).slice(0, COLOURS.length);
  return new Map(first.map(([name], place) => [name, {
    colour: COLOURS[place], shape: SHAPES[place],
  }]));
}

function byType(model, metric) {
  if (metric.key !== "seconds") {
    return new Map(model.types.map((group) => [group.name, group[metric.key]]));
  }
  const sums = new Map();
  model.executed.op.forEach((op, place) => {
    sums.set(op, (sums.get(op) || 0) + model.executed.seconds[place]);
  });
  return sums;
}

function drawTypes(models, metric, appearance, onPick) {
  const colours = theme();
  const sums = models.map((model) => byType(model, metric));
  const wholes = sums.map((sum) => [...sum.values()].reduce((a, b) => a + b, 0));
  const most = new Map();
  for (const sum of sums) {
    for (const [name, value] of sum) most.set(name, Math.max(most.get(name) || 0, value));
  }
  const ranked = [...most].filter(([, value]) => value > 0).sort((a, b) => b[1] - a[1])
    .map(([name]) => name);
  const shown = ranked.slice(0, MOST_BARS);
  const rest = ranked.slice(MOST_BARS);
  const restName = plural(rest.length, "other type");
  const value = (sum, name) => sum.get(name) || 0;
  const restOf = (sum) => rest.reduce((whole, name) => whole + value(sum, name), 0);
  const names = rest.length ? [...shown, restName] : shown;
  const traces = sums.map((sum, place) => {
    const values = shown.map((name) => value(sum, name));
    if (rest.length) values.push(restOf(sum));
    const texts = values.map((x) => `${metric.format(x)}  ${percent(x / wholes[place])}`);
    const own = names.map((name) => (appearance.get(kind(name)) || OTHER).colour);
    return {
      type: "bar", orientation: "h", name: label(models[place].label, 40),
      y: names.map((name) => label(kind(name), 22)), x: values,
      text: models.length > 1 ? values.map((x) => metric.format(x)) : texts,
      textposition: "outside", cliponaxis: false, textfont: {color: colours.quiet, size: 12},
      hoverinfo: "text",
      hovertext: names.map((name, at) =>
        `${label(name)}<br>${label(models[place].label, 40)}<br>${texts[at]}`),
      marker: {color: models.length > 1 ? (place ? colours.accent : colours.bar) : own},
    };
  });
  const longest = Math.max(1e-30, ...traces.flatMap((trace) => trace.x));
  const rows = names.length * traces.length;
  draw("types", traces, {
    height: Math.max(160, 60 + rows * (models.length > 1 ? 19 : 27)),
    barmode: "group", bargap: 0.3,
    margin: {l: 8, r: 8, t: models.length > 1 ? 40 : 8, b: 8},
    showlegend: models.length > 1,
    legend: {orientation: "h", y: 1, yanchor: "bottom", x: 0},
    xaxis: axis(colours, {
      range: [0, longest * 1.6], showticklabels: false, showgrid: false, fixedrange: true,
    }),
    yaxis: axis(colours, {
      autorange: "reversed", categoryorder: "array", type: "category", fixedrange: true,
      categoryarray: names.map((name) => label(kind(name), 22)), ticksuffix: " ", showgrid: false,
    }),
  });
  caption("types", ranked.length
    ? `${metric.title}${metric.key === "seconds" ? ", as ONNX Runtime will run it" : ""}`
    : `No node has any ${metric.title}.`);
  onClick("types", (point) => {
    const name = names[point.pointNumber];
    if (name !== restName) onPick(kind(name));
  });
}

function drawMemory(models) {
  const colours = theme();
  const several = models.length > 1;
  const traces = [];
  models.forEach((model, order) => {
    const steps = model.timeline.bytes.length;
    // Two schedules differ in length: then the axis is how far along each is.
    const x = model.timeline.bytes.map((_, at) => several ? 100 * (at + 0.5) / steps : at + 1);
    const colour = several && order === 0 ? colours.quiet : colours.accent;
    const ways = [
      ["bytes", "peak", "without reuse", "dot"],
      ["in_place", "peak_in_place", "with reuse", "solid"],
    ];
    for (const [key, peakKey, title, dash] of ways) {
      const y = model.timeline[key];
      const name = several ? `${label(model.label, narrow() ? 18 : 40)}, ${title}` : title;
      const peak = y.indexOf(model.total[peakKey]);
      const group = {
        legendgroup: name, hoverinfo: "text",
        visible: several && dash === "dot" ? "legendonly" : true,
      };
      traces.push({
        type: "scatter", mode: "lines", name, x, y, ...group,
        line: {shape: "hvh", color: colour, width: dash === "dot" ? 1.5 : 2, dash},
        fill: dash === "solid" && !several ? "tozeroy" : "none",
        fillcolor: `${colours.accent}22`,
        hovertext: y.map((held, at) =>
          `${label(model.timeline.node[at])}<br>step ${exact(at + 1)} of ${exact(steps)}` +
          `<br>${bytes(held)} ${title}`),
      });
      if (peak >= 0) {
        traces.push({
          type: "scatter", mode: "markers+text", name: `peak ${title}`, ...group, showlegend: false,
          x: [x[peak]], y: [y[peak]], text: [`peak ${bytes(y[peak])}`],
          textposition: x[peak] > x[x.length - 1] * 0.7 ? "top left" : "top right",
          textfont: {color: colours.ink, size: 12},
          hovertext: [`peak ${title}: ${bytes(y[peak])}<br>${label(model.timeline.node[peak])}`],
          marker: {color: colour, size: 9, symbol: dash === "solid" ? "diamond" : "diamond-open"},
        });
      }
    }
  });
  const highest = Math.max(1, ...models.map((model) => model.total.peak));
  draw("memory", traces, {
    height: 320 + (narrow() && several ? 100 : 0), hovermode: "closest", showlegend: true,
    legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0},
    margin: {l: 8, r: 12, t: 8, b: 8},
    xaxis: axis(colours, {
      title: several ? "how far along the schedule" : "step of the schedule",
      ticksuffix: several ? "%" : "",
      ...(several ? {range: [0, 100]} : {rangemode: "tozero"}),
    }),
    yaxis: axis(colours, {tickformat: "~s", ticksuffix: "B", range: [0, highest * 1.2]}),
  });
  const peaks = models.map((model) => {
    const {peak, peak_in_place: less, peak_node_in_place: node} = model.total;
    const at = node === null ? "" : `, at ${shorten(node, 60)}`;
    return `${several ? `${model.label}: peak` : "Peak"} ${bytes(less)} with reuse${at}; ` +
      `${bytes(peak)} without.`;
  });
  peaks.push("Reuse is to write over an input that no other node needs any more.");
  if (several) peaks.push("Click the legend to see the curves without reuse.");
  caption("memory", peaks.join(" "));
}
