// The charts: one for each quantity that some run has, all with the same range and one cursor.
//
// A run has one place among the colors, the same everywhere. Of each quantity there are the points
// to draw and, where there are too many values, the means of buckets, which the smoothed line
// follows. Steps become residues or hours by a table that the series comes with.

const COLORS = 8;
const GROUPS = ["Loss", "Optimization", "Throughput", "Efficiency", "Benchmarks"];
const CHARTS = [
  { key: "loss", title: "Training loss", unit: "nats", group: 0, format: fixed, log: true, smooth: true, large: true },
  { key: "validation_loss", title: "Held-out loss", unit: "nats", group: 0, format: fixed, log: true, large: true },
  { key: "accuracy", title: "Training accuracy", group: 1, format: percent, smooth: true },
  { key: "validation_accuracy", title: "Held-out accuracy", group: 1, format: percent },
  { key: "learning_rate", title: "Learning rate", group: 1, format: exponent },
  { key: "grad_norm", title: "Gradient norm", group: 1, format: short, log: true, smooth: true },
  { key: "skipped_updates", title: "Skipped updates", group: 1, format: whole, onlyIfAny: true },
  { key: "tokens_per_second", title: "Tokens per second", group: 2, format: short, smooth: true, robust: true },
  { key: "examples_per_second", title: "Sequences per second", group: 2, format: short, smooth: true, robust: true },
  { key: "step_seconds", title: "Time per step", group: 2, format: duration, smooth: true, robust: true },
  { key: "data_wait_seconds", title: "Waiting for data, per step", group: 2, format: duration, smooth: true, robust: true },
  { key: "mfu", title: "Model FLOPs utilization", group: 3, format: percent, smooth: true },
  { key: "padding_efficiency", title: "Padding efficiency", group: 3, format: percent, smooth: true },
  { key: "goodput", title: "Goodput", group: 3, format: percent },
];

// Those of benchmarks, by their names, of which there may be any.
const BENCHMARKS = new Map();

function benchmarkCharts() {
  const names = new Set(runs.flatMap((run) => Object.keys(run.benchmarks)));
  for (const key of [...names].filter((name) => !BENCHMARKS.has(name))) {
    const isShare = /accuracy$|precision at/.test(key);
    BENCHMARKS.set(key, { key, title: key, group: 4, format: isShare ? percent : fixed, isBenchmark: true });
  }
  return [...names].sort().map((name) => BENCHMARKS.get(name));
}

const pointsOf = (series, spec) => (spec.isBenchmark ? series?.benchmarks : series?.quantities)?.[spec.key];

const AXES = {
  steps: { name: "step", text: (value) => `step ${whole(value)}`, tick: (value) => short(value, 4) },
  residues: { name: "residues", text: (value) => `${short(value, 4)} residues`, tick: (value) => short(value, 4) },
  hours: { name: "hours", text: (value) => hoursText(value), tick: (value) => (value === 0 ? "0" : value < 1 / 60 ? `${short(3600 * value, 3)} s` : value < 2 ? `${short(60 * value, 3)} min` : `${short(value, 4)} h`) },
};

// What is shown, and how.
const view = { axis: "steps", log: false, smoothing: 40, marks: true, range: null, hidden: new Set() };

// What was fetched: for each run its series over the whole run, and over the range that is shown.
const loaded = { whole: new Map(), shown: new Map() };
let runs = [];
let charts = [];

const isShown = (run) => !view.hidden.has(run.id);
const seriesOf = (run) => loaded.shown.get(run.id) ?? loaded.whole.get(run.id);
const color = (id) => resolved(`--run-${id % COLORS}`);

// A color of the style sheet as the canvas takes it, in the theme of the moment.
function resolved(name) {
  const probe = byId("said");
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

// The same color, so much less opaque. What is computed is `rgb(R, G, B)`, or `color(srgb R G B)`.
const faint = (color, alpha) => color.startsWith("rgb(") ? color.replace("rgb(", "rgba(").replace(")", `, ${alpha})`) : color.replace(")", ` / ${alpha})`);

// The value of a table at x, evenly between its entries.
function interpolate(from, to, x) {
  if (!from.length) return x;
  let low = 0, high = from.length - 1;
  if (x <= from[0]) return to[0] * (from[0] > 0 ? x / from[0] : 1);
  if (x >= from[high]) return to[high];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (from[middle] <= x) low = middle; else high = middle;
  }
  const width = from[high] - from[low];
  return width ? to[low] + ((to[high] - to[low]) * (x - from[low])) / width : to[low];
}

const toAxis = (series, step) => (view.axis === "steps" ? step : interpolate(series.axes.steps, series.axes[view.axis], step));
const toSteps = (series, x) => (view.axis === "steps" ? x : interpolate(series.axes[view.axis], series.axes.steps, x));

// All that the visible runs have.
function domain() {
  let low = Infinity, high = -Infinity;
  for (const run of runs.filter(isShown)) {
    const series = loaded.whole.get(run.id);
    const steps = series?.axes.steps ?? [];
    if (!steps.length) continue;
    low = Math.min(low, toAxis(series, steps[0]));
    high = Math.max(high, toAxis(series, steps[steps.length - 1]));
  }
  if (low > high) return [0, 1];
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}

const shownRange = () => view.range ?? domain();

// A moving mean whose weights fall off with the distance on the axis, to both sides, so that the
// line does not lag behind. The slider gives the width as a share of what is shown, so that zooming
// in shows more.
function smoothed(xs, ys) {
  const [low, high] = shownRange();
  const width = (view.smoothing / 100) ** 2 * 0.15 * (high - low);
  const sums = new Float64Array(ys.length), weights = new Float64Array(ys.length);
  // Each value counts from both sides, and once too often at its own place.
  const walk = (order, own) => {
    let sum = 0, weight = 0, before = 0;
    for (let n = 0; n < ys.length; n++) {
      const at = order(n);
      const kept = n ? Math.exp(-Math.abs(xs[at] - before) / width) : 0;
      sum = sum * kept + ys[at];
      weight = weight * kept + 1;
      sums[at] += sum - own * ys[at];
      weights[at] += weight - own;
      before = xs[at];
    }
  };
  walk((n) => n, 0);
  walk((n) => ys.length - 1 - n, 1);
  return Array.from(sums, (sum, at) => sum / weights[at]);
}

// Above nearly all of the values, with some room.
const usualMost = (values) => 1.5 * Float64Array.from(values).sort()[Math.floor(0.96 * (values.length - 1))];

// The two lines of a run in a chart: what was measured, and what it comes to.
function lines(chart, run) {
  const series = seriesOf(run);
  const points = pointsOf(series, chart);
  if (!points || !isShown(run)) return [[[], []], [[], []]];
  const convert = (steps) => (view.axis === "steps" ? steps : steps.map((step) => toAxis(series, step)));
  const measured = [convert(points.steps), points.values];
  if (!chart.smooth || view.smoothing === 0 || points.steps.length < 3) return [[[], []], measured];
  const base = points.means ? [convert(points.means.steps), points.means.values] : measured;
  // A few moments that were many times the usual would lift the mean of their whole surroundings.
  const most = chart.robust ? usualMost(points.values) : Infinity;
  return [measured, [base[0], smoothed(base[0], base[1].map((value) => Math.min(value, most)))]];
}

class Chart {
  constructor(spec) {
    this.spec = spec;
    this.value = element("span", { class: "at muted" });
    this.readout = element("ul", { class: "readout" });
    this.canvas = element("div", { class: "canvas" });
    this.figure = element("figure", { class: spec.large ? "chart large" : "chart", tabindex: "0", role: "group", "data-key": spec.key },
      element("figcaption", {}, element("span", { class: "name" }, spec.title), spec.unit ? element("span", { class: "unit muted" }, spec.unit) : null, element("span", { class: "unit cut muted", hidden: true }), this.value),
      this.readout, this.canvas);
    this.cut = this.figure.querySelector(".cut");
    this.figure.addEventListener("keydown", (event) => chartKey(this, event));
    this.figure.addEventListener("blur", () => moveCursor(null));
    new ResizeObserver(() => this.resize()).observe(this.canvas);
  }

  // Draws it from nothing: for other runs, another theme, another scale.
  build() {
    this.plot?.destroy();
    this.rows = runs.map((run) => {
      const value = element("b", {});
      const row = element("li", {}, swatch(run.id), this.names() ? element("span", { class: "run" }, run.name) : null, value);
      return { run, row, value };
    });
    this.readout.replaceChildren(...this.rows.map(({ row }) => row));
    this.plot = new uPlot(this.options(), this.data(), this.canvas);
    const over = this.plot.over;
    over.addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch") moveCursor(this.plot.posToVal(event.clientX - over.getBoundingClientRect().left, "x"));
    });
    this.show(null);
  }

  data() {
    this.tables = runs.map((run) => lines(this.spec, run));
    const usable = this.isLog() ? (ys) => ys.map((y) => (y > 0 ? y : null)) : (ys) => ys;
    const tables = this.tables.flat().map(([xs, ys]) => [xs, usable(ys)]);
    return uPlot.join(tables);
  }

  // Where the axis ends: rates that were measured over a moment can be many times the usual ones,
  // and would leave nothing to see of these. The caption says what is cut off.
  ceiling(high) {
    if (!this.spec.robust) return high;
    const [from, to] = shownRange(), values = [];
    for (const [raw, main] of this.tables ?? []) {
      const [xs, ys] = raw[0].length ? raw : main;
      xs.forEach((x, index) => { if (x >= from && x <= to) values.push(ys[index]); });
    }
    const usual = usualMost(values);
    const isCut = values.length > 20 && high > 2 * usual;
    this.cut.hidden = !isCut;
    this.cut.textContent = isCut ? `peaks up to ${this.spec.format(high)} are cut off` : "";
    return isCut ? usual : high;
  }

  // Small charts leave the names of many runs to the large ones.
  names() { return runs.length > 1 && (this.spec.large || runs.length <= 3); }

  isLog() { return this.spec.log && view.log; }

  options() {
    const text = resolved("--muted"), grid = resolved("--grid"), axis = AXES[view.axis];
    const look = { stroke: text, font: "12px system-ui, sans-serif", grid: { stroke: grid, width: 1 }, ticks: { show: false } };
    const series = runs.flatMap((run) => {
      const stroke = color(run.id), dash = run.id >= COLORS ? [6, 4] : undefined;
      const dots = { show: (plot, index) => dotsOf(this.tables[(index - 1) >> 1][(index - 1) & 1][0].length, this.spec), size: 5, fill: stroke };
      const raw = { stroke: faint(stroke, 0.38), width: 1, spanGaps: true, points: { show: false } };
      return [raw, { stroke, width: 1.75, dash, spanGaps: true, points: dots }];
    });
    return {
      ...this.size(),
      padding: [8, 12, 0, 0],
      legend: { show: false },
      scales: {
        x: { time: false, range: () => shownRange() },
        y: this.isLog() ? { distr: 3, range: (_, low, high) => (low > 0 ? [low / 1.05, high * 1.05] : [0.1, 1]) } : { range: (_, low, high) => roomy(low, this.ceiling(high), this.spec.format === percent ? 1 : Infinity) },
      },
      axes: [
        { ...look, values: (_, ticks) => ticks.map(axis.tick), space: 70, size: 30, ...(view.axis === "hours" ? { splits: hourTicks } : {}) },
        { ...look, values: (_, ticks) => axisTexts(ticks, this.spec), space: 34, size: (_, values) => 14 + 6.6 * Math.max(3, ...(values ?? []).map((value) => value.length)), ...(this.isLog() ? { splits: (_p, _i, low, high) => logTicks(low, high), filter: (_, ticks) => ticks } : {}) },
      ],
      series: [{}, ...series],
      cursor: {
        y: false,
        drag: { x: true, y: false, setScale: false },
        bind: { dblclick: () => () => setRange(null) },
        dataIdx: (plot, index, at) => nearestKnown(plot.data[index], plot.data[0], at),
        points: { size: 7, width: 2, show: true },
      },
      hooks: {
        setCursor: [(plot) => { if (!moving && this.plot) moveCursor(plot.cursor.left < 0 ? null : plot.posToVal(plot.cursor.left, "x"), this); }],
        setSelect: [(plot) => {
          const { left, width } = plot.select;
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          if (width > 4) setRange([plot.posToVal(left, "x"), plot.posToVal(left + width, "x")]);
        }],
        drawAxes: [(plot) => { if (view.marks) drawMarks(plot); }],
      },
    };
  }

  size() {
    const width = Math.max(160, this.canvas.clientWidth);
    return { width, height: this.canvas.clientHeight || 200 };
  }

  resize() {
    const { width, height } = this.size();
    if (this.plot && (this.plot.width !== width || this.plot.height !== height)) this.plot.setSize({ width, height });
  }

  // Takes new points, or another range.
  update() {
    const [min, max] = shownRange();
    this.plot.batch(() => {
      this.plot.setData(this.data(), false);
      this.plot.setScale("x", { min, max });
    });
    this.show(cursorAt);
  }

  // Shows the values at the cursor, or the last ones.
  show(at) {
    this.value.textContent = at === null ? "" : AXES[view.axis].text(at);
    const texts = this.rows.map(({ run, row, value }, place) => {
      const [raw, main] = this.tables[place];
      const [xs, ys] = main;
      row.hidden = !isShown(run) || !xs.length;
      const index = at === null ? xs.length - 1 : nearest(xs, at);
      // At the end it is the last value as it was measured, which the figures above show too.
      const shown = at === null && raw[0].length ? raw[1][raw[1].length - 1] : ys[index];
      const interval = xs.length ? pointsOf(seriesOf(run), this.spec)?.intervals?.[index] : null;
      const range = interval ? ` (${interval.map((end) => this.spec.format(end)).join(" to ")})` : "";
      value.textContent = xs.length ? this.spec.format(shown) + range : "";
      return row.hidden ? null : `${run.name} ${value.textContent}`;
    });
    const all = texts.filter((text) => text !== null).join(", ");
    this.figure.setAttribute("aria-label", `${this.spec.title}${at === null ? "" : ` at ${AXES[view.axis].text(at)}`}: ${all || "nothing yet"}`);
  }
}

const dotsOf = (count, spec) => count === 1 || (!spec.smooth && count > 0 && count <= 60 && (spec.isBenchmark || spec.key.startsWith("validation")));

function swatch(id) {
  const made = element("span", { class: id >= COLORS ? "swatch dashed" : "swatch", "aria-hidden": "true" });
  made.style.setProperty("--color", `var(--run-${id % COLORS})`);
  return made;
}

// The index of the value nearest to x.
function nearest(xs, x) {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle; else high = middle;
  }
  return high > 0 && Math.abs(xs[high] - x) < Math.abs(xs[low] - x) ? high : low;
}

// The same among the joined points, of which a line has only some.
function nearestKnown(ys, xs, at) {
  let before = at, after = at;
  while (before >= 0 && (ys[before] === null || ys[before] === undefined)) before--;
  while (after < ys.length && (ys[after] === null || ys[after] === undefined)) after++;
  if (before < 0) return after < ys.length ? after : null;
  if (after >= ys.length) return before;
  return xs[at] - xs[before] <= xs[after] - xs[at] ? before : after;
}

// Some room above and below, but for what cannot be below 0 or above the most. A constant stands in
// the middle, also one that rounding made uneven.
function roomy(low, high, most) {
  if (!known(low) || !known(high)) return [0, 1];
  const isConstant = high - low <= 1e-5 * Math.abs(high);
  const room = isConstant ? 0.1 * Math.abs(high) || 1 : 0.06 * (high - low);
  return [low >= 0 && low - room < 0 ? 0 : low - room, high <= most ? Math.min(most, high + room) : high + room];
}

// Ticks whose texts differ: more digits where they are close.
function axisTexts(ticks, spec) {
  const present = ticks.filter(known);
  for (const digits of [2, 3, 4, 5]) {
    const text = (value) => {
      if (value === 0) return "0";
      if (spec.format === percent) return `${trimmed((100 * value).toPrecision(digits))} %`;
      if (spec.format === duration) return value < 1 ? `${trimmed((1000 * value).toPrecision(digits))} ms` : `${trimmed(value.toPrecision(digits))} s`;
      return short(value, digits);
    };
    const texts = ticks.map((value) => (known(value) ? text(value) : ""));
    if (digits === 5 || new Set(texts.filter((_, index) => known(ticks[index]))).size === present.length) return texts;
  }
}

// Ticks at whole seconds, minutes and hours.
function hourTicks(plot, _axis, low, high, _increment, space) {
  const count = Math.max(2, plot.width / Math.max(space, 70));
  const units = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 432000, 864000, 1728000, 4320000];
  const wanted = ((high - low) * 3600) / count;
  const unit = (units.find((seconds) => seconds >= wanted) ?? 8640000) / 3600;
  const ticks = [];
  for (let at = Math.ceil(low / unit); at * unit <= high; at++) ticks.push(at * unit);
  return ticks;
}

// Ticks of a logarithmic axis: even ones where it is short, else 1, 2 and 5 of each decade.
function logTicks(low, high) {
  if (!(low > 0)) return [];
  const ticks = [];
  if (high / low < 8) {
    const raw = (high - low) / 5, unit = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((factor) => factor * unit).find((candidate) => candidate >= raw);
    for (let at = Math.ceil(low / step); at * step <= high; at++) ticks.push(at * step);
    return ticks;
  }
  const decades = Math.log10(high / low), factors = decades > 4 ? [1] : decades > 2 ? [1, 3] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const factor of factors) {
      const tick = factor * 10 ** power;
      if (tick >= low && tick <= high) ticks.push(tick);
    }
  }
  return ticks;
}

// Restarts as dashed lines in the color of their run, rollbacks with a triangle turned back.
function drawMarks(plot) {
  const { ctx } = plot, { left, top, width, height } = plot.bbox, size = 5 * devicePixelRatio;
  for (const run of runs.filter(isShown)) {
    const series = loaded.whole.get(run.id);
    if (!series) continue;
    for (const mark of run.marks) {
      const x = plot.valToPos(toAxis(series, mark.step), "x", true);
      if (x < left || x > left + width) continue;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = color(run.id);
      ctx.lineWidth = devicePixelRatio;
      ctx.globalAlpha = 0.8;
      ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(x, top);
      ctx.lineTo(x, top + height);
      ctx.stroke();
      ctx.beginPath();
      if (mark.kind === "rollback") { ctx.moveTo(x, top); ctx.lineTo(x, top + 2 * size); ctx.lineTo(x - 1.5 * size, top + size); }
      else { ctx.moveTo(x - size, top); ctx.lineTo(x + size, top); ctx.lineTo(x, top + 1.5 * size); }
      ctx.fill();
      ctx.restore();
    }
  }
}

// Where the cursor of all charts is on the axis.
let cursorAt = null;
let moving = false;

function moveCursor(at, from = null) {
  cursorAt = at;
  moving = true;
  for (const chart of charts) {
    if (chart !== from && chart.plot) {
      const left = at === null ? -10 : chart.plot.valToPos(at, "x");
      chart.plot.setCursor({ left, top: at === null ? -10 : 1 }, true, false);
    }
    chart.show(at);
  }
  moving = false;
}

// Builds the charts of what the runs have.
function buildCharts() {
  const has = (spec) => (run) => {
    const points = pointsOf(loaded.whole.get(run.id), spec);
    return points && (!spec.onlyIfAny || points.values.some((value) => value > 0));
  };
  const wanted = [...CHARTS, ...benchmarkCharts()].filter((spec) => runs.some(has(spec)));
  const same = wanted.length === charts.length && wanted.every((spec, place) => charts[place].spec === spec);
  if (!same) {
    charts = wanted.map((spec) => charts.find((chart) => chart.spec === spec) ?? new Chart(spec));
    const group = (name, number) => {
      const members = charts.filter((chart) => chart.spec.group === number);
      return members.length ? element("section", { class: "group", "aria-label": name }, element("h2", {}, name), element("div", { class: "grid" }, members.map((chart) => chart.figure))) : null;
    };
    byId("charts").replaceChildren(...GROUPS.map(group).filter(Boolean));
  }
  charts.forEach((chart) => chart.build());
}

const updateCharts = () => charts.forEach((chart) => chart.update());
