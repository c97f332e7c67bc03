// The page as a whole: it asks for data, keeps what is shown in step with the controls, and knows
// the keys.

let latest = null;
const POLL = 1500;

function bucketsWanted() {
  const widest = Math.max(200, ...charts.map((chart) => chart.canvas.clientWidth));
  return Math.min(2000, Math.ceil(widest));
}

// The steps of a run that the range on the axis covers; null where it has no end.
function stepsShown(run) {
  const series = loaded.whole.get(run.id);
  if (!view.range || !series) return [null, null];
  const [from, to] = view.range.map((x) => toSteps(series, x));
  return [Math.max(0, Math.floor(from)), Math.max(0, Math.ceil(to))];
}

// Fetches what is new of each run, and of the range that is shown. Tells whether anything came.
async function fetchSeries() {
  const buckets = bucketsWanted();
  const wanted = [];
  for (const run of runs) {
    const before = loaded.whole.get(run.id);
    const wholeRun = before?.version !== run.version;
    const range = stepsShown(run), ranged = range[0] !== null;
    const key = `${run.version} ${range} ${buckets}`;
    if (wholeRun) wanted.push(source.series(run.id, [null, null], buckets).then((series) => loaded.whole.set(run.id, series)));
    if (!ranged) loaded.shown.delete(run.id);
    else if (source.live && loaded.shown.get(run.id)?.key !== key) {
      wanted.push(source.series(run.id, range, buckets).then((series) => loaded.shown.set(run.id, { ...series, key })));
    }
  }
  await Promise.all(wanted);
  return wanted.length > 0;
}

// Shows a state: the runs may be more than before, their numbers others.
async function take(state) {
  const structure = (some) => JSON.stringify(some.map((run) => [run.id, run.name, Object.keys(run.last), Object.keys(run.benchmarks)]));
  const changed = structure(runs) !== structure(state.runs);
  const versions = (some) => some.map((run) => `${run.version} ${run.status}`).join();
  const tables = changed || versions(runs) !== versions(state.runs);
  latest = state;
  runs = state.runs;
  const fetched = await fetchSeries();
  updateHeader(state);
  updateCards(state);
  if (changed) buildCharts();
  else if (fetched) updateCharts();
  if (tables) updateTables(state);
  const residues = runs.some((run) => run.residues), hours = runs.some((run) => run.hours);
  for (const [name, there] of [["residues", residues], ["hours", hours]]) {
    document.querySelector(`input[name=axis][value=${name}]`).disabled = !there;
  }
  byId("tools").hidden = !charts.length;
}

function updateHeader(state) {
  const [only] = state.runs;
  const going = state.runs.filter((run) => run.status === "running" || run.status === "starting").length;
  const title = state.runs.length === 1 ? only.name : plural(state.runs.length, "run");
  byId("title").textContent = state.runs.length === 1 ? only.name : `${plural(state.runs.length, "training run")}`;
  byId("subtitle").textContent = state.runs.length === 0 ? "No runs yet: they appear here as soon as one begins." : state.runs.length === 1
    ? [only.platform && only.devices ? `${whole(only.devices)} ${only.platform} ${only.devices === 1 ? "device" : "devices"}` : null, only.path !== only.name ? only.path : null].filter(Boolean).join(" \u00b7 ")
    : Object.keys(STATUS).map((status) => [state.runs.filter((run) => run.status === status).length, status]).filter(([count]) => count).map((pair) => pair.join(" ")).join(" \u00b7 ");
  const step = state.runs.length === 1 && only.step ? ` \u2013 step ${whole(only.step)}` : "";
  document.title = `${title}${step}`;
  byId("made").textContent = source.live ? `ankh ${state.program}, watching` : `ankh ${state.program}, report of ${moment(state.time)}`;
  byId("live").hidden = !source.live;
  byId("live").textContent = going ? "Live" : "Watching";
}

// Shows a part of the axis, or all of it.
let fetching = null;

function setRange(range) {
  const [low, high] = domain();
  if (range) {
    const least = (high - low) / 1e6;
    const [from, to] = [Math.max(low, range[0]), Math.min(high, range[1])];
    range = to - from < least ? null : from <= low && to >= high ? null : [from, to];
  }
  view.range = range;
  byId("zoom-reset").disabled = !range;
  const text = AXES[view.axis].text;
  say(range ? `showing ${text(range[0])} to ${text(range[1])}` : "showing the whole run");
  if (!range) loaded.shown.clear();
  updateCharts();
  if (!source.live) return;
  clearTimeout(fetching);
  fetching = setTimeout(async () => {
    try {
      if (await fetchSeries()) updateCharts();
    } catch (error) { lost(error); }
  }, 150);
}

function zoom(factor, center = cursorAt) {
  const [low, high] = shownRange(), middle = center ?? (low + high) / 2;
  setRange([middle - (middle - low) * factor, middle + (high - middle) * factor]);
}

function pan(share) {
  if (!view.range) return;
  const [low, high] = view.range, [first, last] = domain();
  const by = Math.max(first - low, Math.min(last - high, share * (high - low)));
  setRange([low + by, high + by]);
}

function setAxis(axis) {
  const input = document.querySelector(`input[name=axis][value=${axis}]`);
  if (input.disabled) return;
  input.checked = true;
  // The range stays at the same steps of the first run that is shown.
  const run = runs.find(isShown), series = run && loaded.whole.get(run.id);
  const steps = view.range && series ? view.range.map((x) => toSteps(series, x)) : null;
  view.axis = axis;
  view.range = steps && steps.map((step) => toAxis(series, step));
  cursorAt = null;
  charts.forEach((chart) => chart.build());
  say(`by ${AXES[axis].name}`);
}

function setScale(scale) {
  document.querySelector(`input[name=scale][value=${scale}]`).checked = true;
  view.log = scale === "log";
  charts.filter((chart) => chart.spec.log).forEach((chart) => chart.build());
  say(`${scale} axes for loss and gradient norm`);
}

function setSmoothing(value) {
  view.smoothing = Math.max(0, Math.min(100, value));
  byId("smoothing").value = view.smoothing;
  byId("smoothing-value").textContent = view.smoothing;
  updateCharts();
}

function toggleMarks() {
  view.marks = !view.marks;
  byId("marks").setAttribute("aria-pressed", String(view.marks));
  charts.forEach((chart) => chart.plot.redraw());
}

const THEMES = ["system", "light", "dark"];

function setTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId("theme").textContent = `Theme: ${theme}`;
  // Where nothing may be kept, the choice lasts as long as the page.
  try { localStorage.setItem("ankh-theme", theme); } catch { /* as above */ }
  charts.forEach((chart) => chart.build());
}

const themeNow = () => document.documentElement.dataset.theme ?? "system";
const nextTheme = () => setTheme(THEMES[(THEMES.indexOf(themeNow()) + 1) % THEMES.length]);

const nextAxis = () => {
  const names = Object.keys(AXES).filter((axis) => !document.querySelector(`input[name=axis][value=${axis}]`).disabled);
  setAxis(names[(names.indexOf(view.axis) + 1) % names.length]);
};

const openHelp = () => byId("help").showModal();

// Keys of the page, and what the help says of them.
const KEYS = [
  ["?", "This help", openHelp],
  ["x", "By steps, residues or hours", nextAxis],
  ["l", "Linear or logarithmic loss", () => setScale(view.log ? "linear" : "log")],
  ["[", "Less smoothing", () => setSmoothing(view.smoothing - 5)],
  ["]", "More smoothing", () => setSmoothing(view.smoothing + 5)],
  ["m", "Marks of restarts", toggleMarks],
  ["+", "Narrower range", () => zoom(0.5)],
  ["-", "Wider range", () => zoom(2)],
  ["0", "Whole run", () => setRange(null)],
  [",", "Earlier", () => pan(-0.25)],
  [".", "Later", () => pan(0.25)],
  ["t", "Theme", nextTheme],
];

const CHART_KEYS = [
  ["1 \u2026 9", "Show or hide a run"],
  ["\u2190 \u2192", "In a chart: move the cursor"],
  ["Home End", "In a chart: first and last value"],
  ["Esc", "In a chart: whole run"],
];

// Keys of a chart that has the focus.
function chartKey(chart, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const [low, high] = shownRange(), now = cursorAt ?? high;
  const moves = {
    ArrowLeft: () => moveCursor(Math.max(low, now - (high - low) * (event.shiftKey ? 0.1 : 0.01))),
    ArrowRight: () => moveCursor(Math.min(high, now + (high - low) * (event.shiftKey ? 0.1 : 0.01))),
    Home: () => moveCursor(low),
    End: () => moveCursor(high),
    Escape: () => setRange(null),
  };
  if (!(event.key in moves)) return;
  event.preventDefault();
  moves[event.key]();
  say(chart.figure.getAttribute("aria-label"));
}

function pageKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  if (event.target.matches?.("input[type=search]")) return;
  const run = /^[1-9]$/.test(event.key) && runs[Number(event.key) - 1];
  if (run) return toggle(run.id);
  const key = event.key === "=" ? "+" : event.key;
  KEYS.find(([name]) => name === key)?.[2]();
}

// The server does not answer, or does not know this browser any more.
function lost(error) {
  byId("banner").textContent = error.status === 401
    ? "This browser is signed out: open the address that pretrain watch printed."
    : `The server does not answer. This is the state of ${latest ? moment(latest.time) : "nothing yet"}; the page goes on by itself when it is back.`;
  byId("banner").hidden = false;
}

async function poll() {
  const began = performance.now();
  try {
    await take(await source.state());
    byId("banner").hidden = true;
  } catch (error) {
    if (!source.live) throw error;
    lost(error);
  }
  // A page that takes long to update is updated less often.
  if (source.live) setTimeout(poll, Math.max(POLL, 3 * (performance.now() - began)));
}

function listen() {
  for (const input of document.querySelectorAll("input[name=axis]")) input.addEventListener("change", () => setAxis(input.value));
  for (const input of document.querySelectorAll("input[name=scale]")) input.addEventListener("change", () => setScale(input.value));
  byId("smoothing").addEventListener("input", (event) => setSmoothing(Number(event.target.value)));
  byId("marks").addEventListener("click", toggleMarks);
  byId("zoom-in").addEventListener("click", () => zoom(0.5, null));
  byId("zoom-out").addEventListener("click", () => zoom(2, null));
  byId("zoom-reset").addEventListener("click", () => setRange(null));
  byId("theme").addEventListener("click", nextTheme);
  byId("help-open").addEventListener("click", openHelp);
  document.addEventListener("keydown", pageKey);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.build()));
  byId("keys").append(...[...KEYS, ...CHART_KEYS].map(([key, what]) => element("div", {}, element("dt", {}, element("kbd", {}, key)), element("dd", {}, what))));
}

listen();
try { setTheme(localStorage.getItem("ankh-theme") ?? "system"); } catch { setTheme("system"); }
poll().then(() => { document.documentElement.dataset.ready = "yes"; });
