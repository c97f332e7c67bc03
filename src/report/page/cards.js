// A card for each run: its state and its key figures. The card's head shows or hides the run.

const STATUS = {
  starting: "Starting",
  running: "Running",
  finished: "Finished",
  stopped: "Stopped",
  stale: "Stale",
};
const MEANING = {
  starting: "A process trains and has logged no step yet",
  running: "A process trains",
  finished: "All steps are done",
  stopped: "The last process ended in order, before the last step",
  stale: "The last process is gone without having ended in order",
};

const FIGURES = [
  ["Loss", (run) => fixed(run.last.loss), () => null],
  ["Held-out loss", (run) => fixed(run.last.validation_loss), (run) => (run.best ? `best ${fixed(run.best.validation_loss)} at step ${whole(run.best.step)}` : null)],
  ["Held-out accuracy", (run) => percent(run.last.validation_accuracy), () => null],
  ["Tokens per second", (run) => short(run.last.tokens_per_second), (run) => (known(run.last.step_seconds) ? `${duration(run.last.step_seconds)} a step` : null)],
  ["MFU", (run) => percent(run.last.mfu), () => null],
  ["Goodput", (run) => percent(run.last.goodput), () => null],
];

class Card {
  constructor(run) {
    this.id = run.id;
    this.pill = element("span", { class: "pill" });
    this.button = element("button", { type: "button", class: "head", "aria-pressed": "true", title: run.path, onclick: () => toggle(run.id) },
      swatch(run.id), element("span", { class: "name" }, run.name));
    this.bar = element("div", { class: "done" });
    this.progress = element("div", { class: "progress", role: "progressbar", "aria-valuemin": "0", "aria-label": `steps of ${run.name}` }, this.bar);
    this.progress.style.setProperty("--color", `var(--run-${run.id % COLORS})`);
    this.steps = element("p", { class: "steps" });
    this.figures = element("dl", { class: "figures" });
    this.notes = element("ul", { class: "notes" });
    this.item = element("li", { class: "card" }, element("div", { class: "row" }, this.button, this.pill), this.progress, this.steps, this.figures, this.notes);
  }

  update(run, time) {
    const shown = isShown(run);
    this.button.setAttribute("aria-pressed", String(shown));
    this.item.classList.toggle("off", !shown);
    this.pill.textContent = STATUS[run.status];
    this.pill.className = `pill ${run.status}`;
    this.pill.title = MEANING[run.status];
    const share = run.steps ? Math.min(1, (run.step ?? 0) / run.steps) : 0;
    this.bar.style.width = `${100 * share}%`;
    this.progress.setAttribute("aria-valuemax", run.steps ?? 0);
    this.progress.setAttribute("aria-valuenow", run.step ?? 0);
    this.steps.replaceChildren(...stepsLine(run, time));
    this.figures.replaceChildren(...FIGURES
      .filter(([, value]) => value(run) !== DASH)
      .map(([name, value, more]) => element("div", {}, element("dt", {}, name), element("dd", {}, value(run), more(run) ? element("small", {}, more(run)) : null))));
    this.notes.replaceChildren(...run.notes.map((note) => element("li", {}, note)));
  }
}

function stepsLine(run, time) {
  const strong = element("b", {}, `Step ${whole(run.step ?? 0)}`);
  const parts = [run.steps ? ` of ${whole(run.steps)}` : ""];
  const going = run.status === "running" || run.status === "starting";
  if (going && known(run.seconds_left)) parts.push(`${duration(run.seconds_left)} left`);
  else parts.push(`${hoursText(run.hours)} of training`);
  if (run.restarts) parts.push(plural(run.restarts, "restart"));
  if (source.live && going && known(run.last_write)) parts.push(`last line ${duration(Math.max(1, time - run.last_write))} ago`);
  return [strong, parts[0] + parts.slice(1).map((part) => ` \u00b7 ${part}`).join("")];
}

const cards = new Map();

function updateCards(state) {
  for (const run of state.runs) {
    if (!cards.has(run.id)) {
      cards.set(run.id, new Card(run));
      byId("cards").append(cards.get(run.id).item);
    }
    cards.get(run.id).update(run, state.time);
  }
  for (const [id, card] of cards) {
    if (state.runs.some((run) => run.id === id)) continue;
    card.item.remove();
    cards.delete(id);
  }
  byId("cards").classList.toggle("single", state.runs.length === 1);
}

function toggle(id) {
  const run = runs.find((candidate) => candidate.id === id);
  if (!run) return;
  if (!view.hidden.delete(id)) view.hidden.add(id);
  say(`${run.name} is ${isShown(run) ? "shown" : "hidden"}`);
  updateCards(latest);
  updateCharts();
}
