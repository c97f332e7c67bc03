// The tables below the charts: what runs came to, where their settings differ, what was planned,
// and what happened.

const SUMMARY = [
  ["Status", (run) => STATUS[run.status]],
  ["Steps", (run) => whole(run.step ?? 0) + (run.steps ? ` of ${whole(run.steps)}` : "")],
  ["Residues", (run) => short(run.residues)],
  ["Epoch", (run) => whole(run.epoch)],
  ["Last loss", (run) => fixed(run.last.loss)],
  ["Best held-out loss", (run) => (run.best ? `${fixed(run.best.validation_loss)}, step ${whole(run.best.step)}` : DASH)],
  ["Training", (run) => hoursText(run.hours)],
  ["Elapsed", (run) => hoursText(run.elapsed_hours)],
  ["Devices", (run) => (run.devices ? `${whole(run.devices)} ${run.platform}` : DASH)],
  ["Device-hours", (run) => (run.devices ? short(run.devices * run.hours) : DASH)],
  ["Restarts", (run) => whole(run.restarts)],
  ["Tokens per second", (run) => short(run.median.tokens_per_second)],
  ["MFU", (run) => percent(run.median.mfu)],
  ["Padding efficiency", (run) => percent(run.median.padding_efficiency)],
  ["Goodput", (run) => percent(run.last.goodput)],
  ["Saved states", (run) => (run.checkpoints.length ? `${whole(run.checkpoints.length)}, last ${whole(run.checkpoints[run.checkpoints.length - 1])}` : DASH)],
];

const PLAN = [
  ["Time per step", (plan) => (plan.estimate ? `${duration(plan.estimate.step_seconds)} to ${duration(plan.estimate.step_seconds + plan.estimate.communication_seconds)}` : DASH), (run) => duration(run.median.step_seconds)],
  ["Sequences per second", (plan) => short(plan.estimate?.examples_per_second), (run) => short(run.median.examples_per_second)],
  ["MFU", (plan) => percent(plan.estimate?.mfu), (run) => percent(run.median.mfu)],
  ["Whole run", (plan) => (plan.estimate ? duration(86400 * plan.estimate.days) : DASH), (run) => duration(run.steps && run.median.step_seconds * run.steps)],
  ["Chip-hours", (plan) => short(plan.estimate?.chip_hours), (run) => short(run.devices && run.steps && (run.devices * run.steps * run.median.step_seconds) / 3600)],
  ["Devices", (plan) => `${whole(plan.slice.chips)} (${plan.slice.name})`, (run) => whole(run.devices)],
  ["Memory per chip", (plan) => bytes(plan.memory.peak) + (plan.memory.limit ? ` of ${bytes(plan.memory.limit)}` : ""), () => DASH],
];

const named = (run) => element("span", { class: "named" }, swatch(run.id), element("span", {}, run.name));
const cell = (content) => element("td", {}, content);
const heading = (content) => element("th", { scope: "row" }, content);

function table(head, rows) {
  return element("table", {}, element("thead", {}, element("tr", {}, head.map((content) => element("th", { scope: "col" }, content)))), element("tbody", {}, rows));
}

// Sections that stay, so that what is open or scrolled stays so when rows change.
const sections = new Map();

function section(key, title, explanation, content) {
  if (!sections.has(key)) {
    const region = element("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": title });
    const made = element("section", { class: "group", id: key }, element("h2", {}, title), element("p", { class: "muted" }), region);
    sections.set(key, { made, region });
    byId("tables").append(made);
  }
  const { made, region } = sections.get(key);
  made.hidden = !content;
  made.querySelector("p").textContent = explanation;
  if (content) region.replaceChildren(content);
}

function updateTables(state) {
  const all = state.runs;
  section("summary", "Summary", "Rates are medians over the run.",
    table(["", ...all.map(named)], SUMMARY
      .filter(([, value]) => all.some((run) => value(run) !== DASH))
      .map(([name, value]) => element("tr", {}, heading(name), all.map((run) => cell(value(run)))))));
  const planned = all.filter((run) => run.plan);
  section("plan", "Plan and measurement", "The plan is the compiler's estimate, the measurement the median of the run.",
    planned.length && table(["", ...planned.flatMap((run) => [element("span", { class: "named" }, swatch(run.id), element("span", {}, `${run.name}, planned`)), "measured"])],
      PLAN.map(([name, expected, measured]) => element("tr", {}, heading(name), planned.flatMap((run) => [cell(expected(run.plan)), cell(measured(run))])))));
  section("differences", "What differs in the configurations", all.length > 1 && !state.differences.length ? "Nothing." : "",
    all.length > 1 && (state.differences.length ? table(["Setting", ...all.map(named)], state.differences.map(({ key, values }) =>
      element("tr", {}, heading(element("code", {}, key)), values.map((value) => cell(value === null ? DASH : element("code", {}, value)))))) : element("span")));
  const events = all.flatMap((run) => run.events.map((event) => ({ run, ...event }))).sort((a, b) => (a.time < b.time ? 1 : -1)).slice(0, 200);
  section("events", "Restarts, warnings and errors", "From the runs\u2019 logs, the newest first.",
    events.length && table(["Time", ...(all.length > 1 ? ["Run"] : []), "Level", "Message"], events.map((event) =>
      element("tr", {}, element("td", { class: "time" }, moment(event.time)), all.length > 1 ? cell(named(event.run)) : null, cell(element("span", { class: `level ${event.level.toLowerCase()}` }, event.level.toLowerCase())), element("td", { class: "text" }, event.text)))));
  allSettings(all);
}

// Every setting, behind a summary: wanted rarely, and long.
function allSettings(all) {
  const keys = [...new Set(all.flatMap((run) => Object.keys(run.settings ?? {})))].sort();
  if (!sections.has("settings")) {
    const filter = element("input", { type: "search", id: "filter", placeholder: "Filter, for example learning", "aria-label": "Filter settings", oninput: () => allSettings(latest.runs) });
    const region = element("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "All settings" });
    const made = element("details", { class: "group", id: "settings" }, element("summary", {}, "All settings"), filter, region);
    sections.set("settings", { made, region, filter });
    byId("tables").append(made);
  }
  const { made, region, filter } = sections.get("settings");
  const wanted = filter.value.trim().toLowerCase();
  made.hidden = !keys.length;
  region.replaceChildren(table(["Setting", ...all.map(named)], keys.filter((key) => key.toLowerCase().includes(wanted)).map((key) =>
    element("tr", {}, heading(element("code", {}, key)), all.map((run) => cell(run.settings && key in run.settings ? element("code", {}, run.settings[key]) : DASH))))));
}
