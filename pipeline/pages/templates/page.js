"use strict";
// Values on pointing and by keyboard; reloading while the run lives, without losing the place.
const PLACE = "place of " + location.pathname;
const now = document.getElementById("now");
const table = document.getElementById("table");
const rows = table ? [...table.tBodies[0].rows].reverse() : []; // by epoch
const heads = table ? [...table.tHead.rows[0].cells] : [];
const columns = heads.map((cell) => cell.dataset.curve);
const charts = [...document.querySelectorAll(".chart")];
const hint = document.getElementById("chosen");
const initial = hint ? hint.textContent : "";
let chosen = null; // an epoch

function choose(epoch) {
  if (chosen !== null) rows[chosen - 1].classList.remove("chosen");
  chosen = epoch === null || !rows.length ? null : Math.min(Math.max(epoch, 1), rows.length);
  const row = rows[(chosen ?? rows.length) - 1];
  if (chosen !== null) row.classList.add("chosen");
  for (const chart of charts) {
    const cursor = chart.querySelector(".cursor");
    cursor.classList.toggle("shown", chosen !== null);
    if (chosen !== null) cursor.setAttribute("d", `M${(1000 * (chosen - 0.5)) / rows.length} 0V1000`);
    for (const value of chart.querySelectorAll(".value")) {
      value.textContent = row.cells[columns.indexOf(value.dataset.curve)].textContent;
    }
  }
  if (hint) {
    const cells = heads.map((head, index) => `${head.textContent} ${row.cells[index].textContent}`);
    hint.textContent = chosen === null ? initial : cells.join(", ");
  }
}

for (const chart of charts) {
  const area = chart.querySelector(".area");
  const point = (event) => {
    const box = area.getBoundingClientRect();
    choose(Math.ceil(((event.clientX - box.left) / box.width) * rows.length));
  };
  area.addEventListener("pointermove", point);
  area.addEventListener("pointerdown", point);
  area.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && choose(null));
  chart.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.round(rows.length / 10));
    const at = chosen ?? rows.length;
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - page, PageDown: at + page, Home: 1, End: rows.length };
    if (event.key in moves) choose(chosen === null && event.key.startsWith("Arrow") ? at : moves[event.key]);
    else if (event.key === "Escape") choose(null);
    else return;
    event.preventDefault();
  });
}

const places = [...document.querySelectorAll("[id].scroll")];
const details = [...document.querySelectorAll("details[id]")];

function keepPlace() {
  store(JSON.stringify({
    top: scrollY,
    chosen,
    focused: charts.indexOf(document.activeElement),
    tops: Object.fromEntries(places.map((place) => [place.id, place.scrollTop])),
    open: details.filter((element) => element.open).map((element) => element.id),
  }));
}

function store(place) {
  try {
    if (place !== undefined) sessionStorage.setItem(PLACE, place);
    return sessionStorage.getItem(PLACE);
  } catch {
    return null; // the browser keeps nothing for this page
  }
}

function restorePlace() {
  const place = JSON.parse(store() ?? "null");
  if (place === null) return;
  for (const element of details) element.open = place.open.includes(element.id);
  for (const element of places) element.scrollTop = place.tops[element.id] ?? 0;
  if (place.focused in charts) charts[place.focused].focus({ preventScroll: true });
  if (place.chosen !== null) choose(place.chosen);
  scrollTo(0, place.top);
}

function passed(seconds) {
  for (const [length, unit] of [[86400, "days"], [3600, "hours"], [60, "minutes"]]) {
    if (seconds >= 2 * length) return `${Math.floor(seconds / length)} ${unit}`;
  }
  return `${Math.max(0, Math.round(seconds))} seconds`;
}

function watch(refresh) {
  const written = Number(now.dataset.written);
  const age = () => (Date.now() - written) / 1000;
  const isSilent = () => age() > Math.max(120, 10 * refresh);
  const tell = () => {
    const silence = document.getElementById("silence");
    silence.hidden = !isSilent();
    silence.textContent = `No news for ${passed(age())}: the run was killed, or a step takes long.`;
  };
  tell();
  setInterval(tell, 1000);
  setTimeout(function reload() {
    if (document.hidden) {
      document.addEventListener("visibilitychange", reload, { once: true });
    } else if (getSelection().type === "Range") {
      setTimeout(reload, 1000); // something is being copied
    } else {
      location.reload();
    }
  }, Math.max(1000 * (isSilent() ? 30 : refresh), 5 * performance.now())); // a long page takes time to load
}

history.scrollRestoration = "manual";
addEventListener("pagehide", keepPlace);
restorePlace();
if (now && now.dataset.refresh) watch(Number(now.dataset.refresh));
