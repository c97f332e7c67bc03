// Numbers and times as people read them, and elements that are built from text, never from markup.

const DASH = "\u2013";
const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

// A number with so many significant digits, and a unit of thousands where it is large.
function short(value, digits = 3) {
  if (!known(value)) return DASH;
  const size = Math.abs(value);
  if (size === 0) return "0";
  for (const [unit, suffix] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= unit) return trimmed((value / unit).toPrecision(digits)) + suffix;
  }
  if (size < 1e-3) return value.toExponential(Math.max(0, digits - 2)).replace("e-", "e\u2212");
  return trimmed(value.toPrecision(digits));
}

const trimmed = (text) => (text.includes("e") ? String(Number(text)) : text.includes(".") ? text.replace(/\.?0+$/, "") : text);
const whole = (value) => (known(value) ? Math.round(value).toLocaleString("en") : DASH);
const fixed = (value, digits = 4) => (known(value) ? value.toFixed(digits) : DASH);
const percent = (value, digits = 1) => (known(value) ? `${(100 * value).toFixed(digits)} %` : DASH);
const exponent = (value) => (!known(value) ? DASH : value === 0 ? "0" : value.toExponential(2).replace("e-", "e\u2212").replace("e+", "e"));

// A time in its two largest units.
function duration(seconds) {
  if (!known(seconds)) return DASH;
  if (seconds < 0.95) return `${short(1000 * seconds, 2)} ms`;
  if (seconds < 59.5) return `${short(seconds, seconds < 9.95 ? 2 : 3).replace(/\..*/, (rest) => (seconds < 9.95 ? rest : ""))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
}

const hoursText = (hours) => (known(hours) ? duration(3600 * hours) : DASH);

function bytes(count) {
  if (!known(count)) return DASH;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; count >= 1024 && unit + 1 < units.length; unit++) count /= 1024;
  return `${count.toFixed(unit ? 1 : 0)} ${units[unit]}`;
}

// A moment of the log, in the reader's own time.
function moment(value) {
  const date = new Date(typeof value === "number" ? 1000 * value : value);
  if (Number.isNaN(date.getTime())) return String(value);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

const plural = (count, noun) => `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;

// An element. Attributes are set as they are, children that are no elements become text.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

const byId = (id) => document.getElementById(id);

// Says something to whoever cannot see what changed.
const say = (text) => { byId("said").textContent = text; };
