// Makes the page live. Without it the page is the same, as it was when it was loaded.
"use strict";

const REFRESH_EVERY_MS = 1000;
const REFRESH_AT_LEAST_MS = 60000;
const seen = new Map();
let key = sessionStorage.getItem("key") || "";
let asked = 0;
let pending = false;
let busy = false;

const byId = (id) => document.getElementById(id);
const headers = () => (key ? { authorization: `Bearer ${key}` } : {});

// --- the reader's zone: the server tells all times by it ---------------------------------------------

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "";
const cookie = `zone=${zone}`;
if (zone && !document.cookie.split("; ").includes(cookie)) {
  document.cookie = `${cookie}; path=/; max-age=31536000; samesite=strict`;
  const kept = document.cookie.split("; ").includes(cookie);
  if (kept && document.body.dataset.zone !== zone) location.reload();
}

// --- what changes by itself --------------------------------------------------------------------------

function sign(words, state) {
  const place = byId("live-sign");
  place.classList.toggle("on", state === "on");
  place.classList.toggle("off", state === "off");
  if (place.textContent !== words) place.textContent = words;
}

function path(element) {
  if (!element || element === document.body) return null;
  if (element.id) return `#${CSS.escape(element.id)}`;
  const more = element.getAttribute("data-more");
  const owner = element.closest("[data-live]");
  if (!owner) return null;
  if (more) return `#${owner.id} [data-more="${more}"]`;
  const all = [...owner.querySelectorAll(element.tagName)];
  return { owner: owner.id, tag: element.tagName, index: all.indexOf(element) };
}

function find(place) {
  if (typeof place === "string") return document.querySelector(place);
  return place && byId(place.owner)?.querySelectorAll(place.tag)[place.index];
}

function swap(fresh) {
  const here = byId(fresh.id);
  const html = fresh.innerHTML;
  if (!here || seen.get(fresh.id) === html) return;
  seen.set(fresh.id, html);
  const focused = here.contains(document.activeElement) ? path(document.activeElement) : null;
  const open = [...here.querySelectorAll("details[open][id]")].map((one) => one.id);
  const scrolled = [...here.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  here.replaceChildren(...fresh.childNodes);
  for (const id of open) if (byId(id)) byId(id).open = true;
  here.querySelectorAll(".scroll").forEach((one, number) => { one.scrollLeft = scrolled[number] || 0; });
  tidy(here);
  find(focused)?.focus({ preventScroll: true });
}

async function refresh() {
  if (busy || document.hidden) { pending = true; return; }
  const wait = asked + REFRESH_EVERY_MS - Date.now();
  if (wait > 0) { if (!pending) { pending = true; setTimeout(refresh, wait); } return; }
  busy = true;
  pending = false;
  asked = Date.now();
  try {
    const zoom = new URLSearchParams(location.search).get("zoom") || "week";
    const answer = await fetch(`/live?zoom=${encodeURIComponent(zoom)}`, { headers: headers() });
    if (answer.status === 401) forget("This key is not the operator's.");
    if (!answer.ok) return;
    const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
    parsed.querySelectorAll("[data-live]").forEach(swap);
    document.body.dataset.refreshed = String(Number(document.body.dataset.refreshed || 0) + 1);
  } catch {
    sign("not reached", "off");
  } finally {
    busy = false;
    if (pending) { pending = false; setTimeout(refresh, REFRESH_EVERY_MS); }
  }
}

let events = null;

function deaf() {
  events?.close();
  events = null;
}

function listen() {
  // a browser keeps few lines open to one server: tabs that nobody sees leave theirs to others
  deaf();
  if (document.hidden) return;
  events = new EventSource("/api/v1/events");
  events.addEventListener("view", () => { sign("live", "on"); refresh(); });
  events.addEventListener("crowded", () => sign("many readers; reload for news", "off"));
  events.onerror = () => {
    sign("reconnecting", "off");
    // after some answers a browser does not try again by itself
    if (events?.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  };
}

// --- details while hovering, and with the keyboard ---------------------------------------------------

const hover = byId("hover");

function show(bar) {
  const entry = bar.dataset.more && byId(bar.dataset.more);
  hover.replaceChildren();
  if (entry) for (const child of [...entry.cloneNode(true).children]) { child.removeAttribute("id"); hover.append(child); }
  else hover.textContent = bar.getAttribute("aria-label");
  hover.hidden = false;
  const edge = bar.querySelector(".box").getBoundingClientRect();
  const left = Math.min(Math.max(8, edge.left), innerWidth - hover.offsetWidth - 8);
  const below = edge.bottom + 8 + hover.offsetHeight < innerHeight;
  hover.style.left = `${left}px`;
  hover.style.top = `${below ? edge.bottom + 8 : Math.max(8, edge.top - hover.offsetHeight - 8)}px`;
}

function hide() { hover.hidden = true; }

for (const kind of ["mouseover", "focusin"]) {
  document.addEventListener(kind, (event) => {
    const bar = event.target.closest?.("#timeline .lanes .bar");
    if (bar) show(bar); else hide();
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
  const bar = event.target.closest?.("#timeline .lanes .bar");
  if (!bar) return;
  const all = bars();
  const here = all.indexOf(bar);
  const there = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: all.length - 1 }[event.key];
  if (there === undefined) return;
  event.preventDefault();
  if (!all[there]) return;
  bar.setAttribute("tabindex", "-1");
  all[there].setAttribute("tabindex", "0");
  all[there].focus();
});
document.addEventListener("scroll", hide, { passive: true, capture: true });

function bars() {
  return [...document.querySelectorAll("#timeline .lanes .bar")].filter((one) => one.getClientRects().length);
}

function tidy(part) {
  // Tab stops once at the timeline; the arrows go on from there
  const stops = [...part.querySelectorAll(".lanes .bar")];
  stops.forEach((one, number) => one.setAttribute("tabindex", number ? "-1" : "0"));
  // what these say is shown in a card of our own
  part.querySelectorAll(".lanes .bar > title").forEach((one) => one.remove());
  hide();
}

// --- would this fit? ---------------------------------------------------------------------------------

byId("what-if-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button");
  const query = new URLSearchParams(new FormData(event.target));
  button.disabled = true;
  byId("answer").textContent = "Looking…";
  try {
    const answer = await fetch(`/what-if?${query}`, { headers: headers() });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    byId("answer").innerHTML = await answer.text();
  } catch (error) {
    byId("answer").textContent = `No answer (${error.message}). Ask again in a moment.`;
  } finally {
    button.disabled = false;
  }
});

// --- the operator ------------------------------------------------------------------------------------

function forget(words) {
  key = "";
  sessionStorage.removeItem("key");
  if (byId("ordered")) byId("ordered").textContent = words;
}

if (byId("operator")) {
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    key = byId("key").value.trim();
    byId("key").value = "";
    if (!key) return;
    sessionStorage.setItem("key", key);
    byId("ordered").textContent = "The key is used from now on.";
    asked = 0;
    refresh();
  });
  byId("forget").addEventListener("click", () => { forget("The key is forgotten."); asked = 0; refresh(); });
  byId("order-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const order = byId("order").value;
    const body = { note: byId("note").value };
    if (byId("hours").value) body.hours = Number(byId("hours").value);
    if (["pin", "evict", "release"].includes(order)) body.model = byId("subject").value;
    if (["cordon", "drain", "uncordon"].includes(order)) body.node = byId("subject").value;
    const answer = await fetch(`/api/v1/orders/${order}`, {
      method: "POST",
      headers: { ...headers(), "content-type": "application/json" },
      body: order === "resume" ? undefined : JSON.stringify(body),
    });
    const said = await answer.json();
    const problem = Array.isArray(said.detail) ? "Name the model or node." : `${said.detail} ${said.remedy}`;
    byId("ordered").textContent = answer.ok ? said.words.join(" ") || "There was nothing to take back." : problem;
    asked = 0;
    refresh();
  });
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) deaf(); else { listen(); refresh(); }
});
setInterval(refresh, REFRESH_AT_LEAST_MS);
tidy(document);
if (key) refresh();
listen();
