// The status page. Texts of members go into text nodes only.

import { get, listen, Unauthorized } from "./updates.js";
import { HeatMap } from "./map.js";

const KINDS = {
  up: ["Up", ""], down: ["Down", "✕"], forced: ["Forced down", "–"],
  held: ["Held", "="], unwell: ["Unwell", "~"], unknown: ["Unknown", "?"],
  draining: ["Draining", "↓"], stopped: ["Stopped", "‖"], left: ["Left", "·"],
};
// Kinds that are no trouble.
const QUIET = new Set(["up", "draining", "stopped", "left"]);
const MARKS = {
  joined: "+", up: "↑", down: "✕", held: "=", left: "·", draining: "↓", unwell: "~", stopped: "‖",
};
const CHIPS = 12, FOUND = 20, TIMELINE = 200, RECENT = 60;

const byId = (id) => document.getElementById(id);
const groups = new Map();
const filter = { kind: null, text: "" };
let picked = null, connected = false, lastMessage = null, poll = 0;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "click") element.addEventListener("click", value);
    else if (name === "text") element.textContent = value;
    else if (name.startsWith("data-") || name.includes("-") || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

const mark = (kind, text) => make("span", { className: "mark", "data-kind": kind, "aria-hidden": "true", text });

// -- groups

class Group {
  constructor(name) {
    this.name = name;
    this.sum = make("span", { className: "sum" });
    this.health = make("div", { className: "backends" });
    this.canvas = make("canvas", { tabIndex: 0, "aria-roledescription": "map of members" });
    this.canvas.setAttribute("role", "application");
    this.racks = make("ul", { className: "chips racks", "aria-label": `Failure domains of ${name} in trouble` });
    this.card = make("section", { className: "card", "aria-label": `Group ${name}` },
      make("div", { className: "title" }, make("h2", { text: name }), this.sum),
      this.health, this.racks, this.canvas);
    // By host.
    this.domains = new Map();
    this.map = new HeatMap(this.canvas, {
      shown: (host, kind) => shown(host, kind, this.domains.get(host)),
      pick: (host) => show(name, host),
      hover: (host, event) => tip(host, host && this.map.kinds.get(host), event, this.domains.get(host)),
      label: (text) => { byId("say").textContent = text; },
    });
    this.backends = [];
    this.recent = [];
    this.disagreements = [];
  }

  counts() {
    const counts = {};
    for (const kind of this.map.kinds.values()) counts[kind] = (counts[kind] || 0) + 1;
    return counts;
  }

  tell() {
    const counts = this.counts(), total = this.map.kinds.size;
    const words = Object.keys(KINDS).filter((kind) => counts[kind])
      .map((kind) => `${number(counts[kind])} ${KINDS[kind][0].toLowerCase()}`);
    this.sum.textContent = words.join(", ") || "no members";
    this.canvas.setAttribute("aria-label", `${this.name}: ${number(total)} members, ${words.join(", ")}. Arrow keys move, Enter shows.`);
    this.tellRacks();
  }

  move(domains) {
    for (const [host, domain] of Object.entries(domains)) {
      if (domain === null) this.domains.delete(host);
      else this.domains.set(host, domain);
    }
    if (filter.text) this.map.draw();
  }

  // A chip for each failure domain with members in trouble, the most first.
  tellRacks() {
    const racks = new Map();
    for (const [host, domain] of this.domains) {
      const kind = this.map.kinds.get(host);
      if (kind === undefined) continue;
      if (!racks.has(domain)) racks.set(domain, { domain, total: 0, trouble: 0, counts: {} });
      const rack = racks.get(domain);
      rack.total += 1;
      if (QUIET.has(kind)) continue;
      rack.trouble += 1;
      rack.counts[kind] = (rack.counts[kind] || 0) + 1;
    }
    const found = [...racks.values()].filter(({ trouble }) => trouble).sort((one, other) => other.trouble - one.trouble);
    const items = found.slice(0, CHIPS).map(({ domain, total, counts }) => {
      const kinds = Object.keys(KINDS).filter((kind) => counts[kind]);
      const words = kinds.map((kind) => `${number(counts[kind])} ${KINDS[kind][0].toLowerCase()}`).join(", ");
      return make("li", {}, make("button", { type: "button", title: `Show the members of ${domain}`, click: () => search(domain) },
        mark(kinds[0], KINDS[kinds[0]][1]), make("span", { text: `${domain}: ${words} of ${number(total)}` })));
    });
    if (found.length > CHIPS) items.push(make("li", { className: "empty", text: `and ${number(found.length - CHIPS)} more` }));
    replace(this.racks, items, JSON.stringify(found));
  }

  takeHealth({ backends, recent, disagreements }) {
    Object.assign(this, { backends, recent, disagreements });
    const lines = this.backends.map((backend, index) => make("div", { className: "backend" }, ...this.line(backend, this.recent[index] || [])));
    for (const { primary, secondary, kind, members, total } of this.disagreements) {
      lines.push(make("div", { className: "backend" }, make("span", { className: members ? "bad" : "",
        text: `${primary} and ${secondary} disagree over ${number(members)} now, ${number(total)} in all: ${kind}` })));
    }
    this.health.replaceChildren(...lines);
  }

  line(backend, recent) {
    const line = [];
    if (backend.answering) {
      line.push(make("span", { text: `${backend.driver} answers in ${milliseconds(backend.refresh_seconds)}` }), spark(recent));
    } else if (backend.refreshes) {
      line.push(make("span", { className: "bad", text: `${backend.driver} does not answer: ${backend.trouble}` }));
    } else {
      line.push(make("span", { text: `${backend.driver}: the first refresh is under way` }));
    }
    if (backend.refreshes) {
      line.push(make("span", { text: `${number(backend.refreshes)} refreshes, ${number(backend.failures)} failed` }),
        make("span", { text: `${number(backend.outages)} outages` }));
    }
    return line;
  }
}

const number = (value) => value.toLocaleString("en");

function milliseconds(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds >= 1) return `${seconds.toFixed(1)} s`;
  return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
}

function spark(recent) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg"), path = document.createElementNS(space, "path");
  const top = Math.max(...recent, 0.001);
  svg.setAttribute("viewBox", `0 0 ${RECENT - 1} 18`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const points = recent.map((seconds, index) => seconds === null ? null
    : `${index},${(17 - 15 * seconds / top).toFixed(1)}`);
  path.setAttribute("d", points.map((point, index) => point && `${points[index - 1] ? "L" : "M"}${point}`).filter(Boolean).join(""));
  svg.append(path);
  return svg;
}

// -- the whole

function shown(host, kind, domain = "") {
  return (!filter.kind || kind === filter.kind) && (!filter.text || host.toLowerCase().includes(filter.text)
    || domain.toLowerCase().includes(filter.text));
}

let telling = false;
function tell() {
  if (telling) return;
  telling = true;
  requestAnimationFrame(() => {
    telling = false;
    tellAll();
  });
}

function tellAll() {
  const counts = {}, trouble = [];
  let total = 0;
  for (const group of groups.values()) {
    group.tell();
    total += group.map.kinds.size;
    for (const [kind, count] of Object.entries(group.counts())) counts[kind] = (counts[kind] || 0) + count;
    for (const host of group.map.hosts) {
      const kind = group.map.kinds.get(host);
      if (!QUIET.has(kind) && kind !== "unknown") trouble.push([group, host, kind]);
    }
  }
  const down = (counts.down || 0) + (counts.forced || 0), { unknown = 0, held = 0, left = 0, unwell = 0, draining = 0, stopped = 0 } = counts;
  const silent = [...groups.values()].filter(({ backends }) => backends.length && backends[0].refreshes && !backends[0].answering);
  let level = "up", words, title;
  if (down) [level, words, title] = ["down", `${number(down)} of ${number(total)} down`, `${down} down`];
  else if (unknown) [level, words, title] = ["unknown", `${number(unknown)} of ${number(total)} unknown`, `${unknown} unknown`];
  else if (held) [level, words, title] = ["held", `${number(held)} of ${number(total)} held`, `${held} held`];
  else if (unwell) [level, words, title] = ["held", `${number(unwell)} of ${number(total)} unwell`, `${unwell} unwell`];
  else if (total) [words, title] = [left || draining || stopped ? "No member is down" : `All ${number(total)} are up`, "all up"];
  else [level, words, title] = ["waiting", "No members", "no members"];
  if (!lastMessage) [level, words, title] = ["waiting", "Connecting", "connecting"];
  byId("verdict").dataset.level = level;
  setText("headline", words);
  const more = [];
  if (down && unknown) more.push(`${number(unknown)} unknown`);
  if (held) more.push(`${number(held)} held as up: a large part of a group, or of a failure domain, fell silent at once`);
  if (unwell) more.push(`${number(unwell)} unwell: up, but not able to work`);
  if (draining) more.push(`${number(draining)} about to stop`);
  if (stopped) more.push(`${number(stopped)} stopped a moment ago, may be restarting`);
  if (left) more.push(`${number(left)} left on purpose`);
  if (silent.length) more.push(`no answer about ${silent.map((group) => group.name).join(", ")}: the last states are shown`);
  if (total) more.push(`${number(counts.up || 0)} up in ${groups.size === 1 ? "one group" : `${groups.size} groups`}`);
  setText("subline", more.join(" · "));
  document.title = `${title} · nova_sg`;
  const order = { down: 0, forced: 1, held: 2, unwell: 3 };
  trouble.sort((one, other) => order[one[2]] - order[other[2]]);
  chips("trouble", trouble, CHIPS);
  tellCounts(counts);
  tellFound();
  byId("empty").hidden = groups.size > 0 || !lastMessage;
}

// A screen reader reads a live region each time it is written to.
function setText(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

function chips(id, members, limit) {
  const items = members.slice(0, limit).map(([group, host, kind]) => make("li", {},
    make("button", { type: "button", title: `${host} in ${group.name}: ${KINDS[kind][0].toLowerCase()}`, click: () => show(group.name, host) },
      mark(kind, KINDS[kind][1]), make("span", { text: host }))));
  if (members.length > limit) items.push(make("li", { className: "empty", text: `and ${number(members.length - limit)} more` }));
  replace(byId(id), items, members.slice(0, limit).map(([group, host, kind]) => `${group.name}\n${host}\n${kind}`).join("\0") + members.length);
}

// Leaves what is the same alone, so it keeps the focus.
function replace(element, children, key) {
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  element.replaceChildren(...children);
}

function tellCounts(counts) {
  const kinds = Object.keys(KINDS).filter((kind) => counts[kind] || kind === "up" || kind === "down" || kind === filter.kind);
  replace(byId("counts"), kinds.map((kind) => {
    const [label, sign] = KINDS[kind];
    return make("button", { type: "button", "data-kind": kind, "aria-pressed": String(filter.kind === kind), click: () => {
      filter.kind = filter.kind === kind ? null : kind;
      refilter();
      byId("counts").querySelector(`[data-kind=${kind}]`)?.focus();
    } }, mark(kind, sign), make("b", { text: number(counts[kind] || 0) }), make("span", { text: label }));
  }), JSON.stringify([kinds, counts, filter.kind]));
}

function tellFound() {
  const found = [];
  let count = 0;
  if (filter.text) {
    for (const group of groups.values()) {
      for (const host of group.map.hosts) {
        const kind = group.map.kinds.get(host);
        if (!shown(host, kind, group.domains.get(host))) continue;
        count += 1;
        if (found.length < FOUND) found.push([group, host, kind]);
      }
    }
    found.length = Math.min(found.length, FOUND);
    setText("say", `${count} found`);
  }
  chips("found", found.concat(Array(count - found.length)), FOUND);
  return found;
}

function refilter() {
  for (const group of groups.values()) group.map.draw();
  tell();
}

// -- one member

async function show(group, host) {
  const before = picked;
  picked = { group, host, opener: before?.opener || document.activeElement };
  byId("detail").hidden = false;
  setText("detail-name", host);
  if (!before || before.host !== host) byId("detail-fields").replaceChildren();
  byId("detail").focus({ preventScroll: true });
  await refresh();
}

async function refresh() {
  clearTimeout(poll);
  if (!picked) return;
  const { group, host } = picked;
  let fields;
  try {
    const member = await get(`v1/groups/${encodeURIComponent(group)}/members/${encodeURIComponent(host)}`);
    const age = member.age === null ? "–" : `${member.age.toFixed(1)} s`;
    fields = [["State", KINDS[member.kind][0].toLowerCase(), member.kind], ["Reason", member.reason], ["Group", member.group],
      ["Binary", member.binary || "–"], ["Last seen", member.last_seen ? clock(member.last_seen, true) : "–"], ["Age", age],
      ["Forced down", member.forced_down ? "yes" : "no"],
      ["Disabled", member.disabled ? `yes: ${member.disabled_reason || "no reason is given"}` : "no"], ["Failure domain", member.failure_domain || "–"], ["Driver", member.driver]];
  } catch (error) {
    if (error instanceof Unauthorized) return login();
    fields = [["", error.message]];
  }
  if (!picked || picked.host !== host || picked.group !== group) return;
  byId("detail-fields").replaceChildren(...fields.flatMap(([name, text, kind]) => [make("dt", { text: name }),
    make("dd", {}, ...(kind ? [mark(kind, KINDS[kind][1]), " "] : []), text)]));
  poll = setTimeout(refresh, 2000);
}

function close() {
  if (!picked) return;
  const { opener } = picked;
  picked = null;
  clearTimeout(poll);
  byId("detail").hidden = true;
  opener?.focus?.({ preventScroll: true });
}

function tip(host, kind, event, domain) {
  const element = byId("tip");
  element.hidden = host === null || event.pointerType === "touch";
  if (element.hidden) return;
  element.textContent = `${host}: ${KINDS[kind]?.[0].toLowerCase()}${domain ? `, ${domain}` : ""}`;
  const left = Math.min(event.clientX + 14, innerWidth - element.offsetWidth - 8);
  element.style.transform = `translate(${left}px, ${Math.min(event.clientY + 16, innerHeight - 40)}px)`;
}

// -- what happened

function clock(iso, day = false) {
  const moment = new Date(iso), today = moment.toDateString() === new Date().toDateString();
  const time = moment.toLocaleTimeString("en-GB");
  return day || !today ? `${moment.toLocaleDateString("en-CA")} ${time}` : time;
}

function happened(event, first = true) {
  const item = make("li", {}, make("time", { dateTime: event.at, title: event.at, text: clock(event.at) }),
    mark(event.type, MARKS[event.type] || ""),
    make("button", { type: "button", className: "host", text: `${event.host} ${event.type}`, click: () => show(event.group, event.host) }),
    make("small", { text: `${event.group}: ${event.reason}` }));
  const list = byId("timeline");
  if (first) list.prepend(item);
  else list.append(item);
  while (list.childElementCount > TIMELINE) list.lastElementChild.remove();
  byId("quiet").hidden = true;
}

// -- server-sent events

const handlers = {
  state(data) {
    const names = new Set(data.groups.map((one) => one.group));
    for (const [name, group] of groups) {
      if (names.has(name)) continue;
      group.card.remove();
      groups.delete(name);
    }
    for (const one of data.groups) {
      let group = groups.get(one.group);
      if (!group) {
        group = new Group(one.group);
        groups.set(one.group, group);
      }
      byId("groups").append(group.card);
      const kinds = new Map();
      for (const [kind, hosts] of Object.entries(one.members)) for (const host of hosts) kinds.set(host, kind);
      group.takeHealth(one);
      group.domains = new Map(Object.entries(one.domains));
      group.map.replace(kinds);
    }
    byId("timeline").replaceChildren();
    byId("quiet").hidden = false;
    for (const event of data.transitions) happened(event);
  },
  members({ group, changed, gone, domains }) {
    for (const host of gone) groups.get(group)?.domains.delete(host);
    groups.get(group)?.move(domains);
    groups.get(group)?.map.change(changed, gone);
    if (picked?.group === group && (picked.host in changed || gone.includes(picked.host))) refresh();
  },
  backends(data) {
    groups.get(data.group)?.takeHealth(data);
  },
  transition: happened,
};

function live(state, words) {
  byId("live").dataset.state = state;
  setText("live", words);
}

function stale() {
  const old = !connected && lastMessage;
  byId("stale").hidden = !old;
  if (old) setText("stale", `No connection to the monitor. This page shows the state of ${clock(lastMessage)}.`);
}

function login() {
  return new Promise((done) => {
    byId("login").showModal();
    byId("login-form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem("nova-sg-token", byId("token").value.trim());
      byId("token").value = "";
      byId("login").close();
      done();
    };
  });
}

async function follow() {
  for (let pause = 500; ; pause = Math.min(pause * 2, 10000)) {
    try {
      await listen("v1/events", (kind, data) => {
        connected = true;
        lastMessage = new Date().toISOString();
        handlers[kind]?.(data);
        pause = 500;
        live("live", "live");
        stale();
        tell();
      }, () => live("waiting", "connected"));
    } catch (error) {
      connected = false;
      if (error instanceof Unauthorized) {
        await login();
        continue;
      }
      live("waiting", "reconnecting");
      stale();
    }
    await new Promise((done) => setTimeout(done, pause * (0.7 + 0.6 * Math.random())));
  }
}

// -- keys and buttons

function search(text) {
  byId("search").value = text;
  filter.text = text.trim().toLowerCase();
  refilter();
}

byId("search").addEventListener("input", (event) => search(event.target.value));
byId("search").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  const [first] = tellFound();
  if (first) show(first[0].name, first[1]);
});
byId("detail-close").addEventListener("click", close);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    if (event.target === byId("search") && filter.text) {
      event.target.value = filter.text = "";
      refilter();
    } else close();
  } else if (event.key === "/" && event.target.tagName !== "INPUT") {
    event.preventDefault();
    byId("search").focus();
  }
});

const THEMES = ["auto", "light", "dark"];
function theme(name) {
  document.documentElement.dataset.theme = name;
  byId("theme").textContent = `Theme: ${name}`;
  for (const group of groups.values()) group.map.draw();
}
byId("theme").addEventListener("click", () => {
  const name = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  localStorage.setItem("nova-sg-theme", name);
  theme(name);
});
theme(THEMES.find((name) => name === localStorage.getItem("nova-sg-theme")) || "auto");
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const group of groups.values()) group.map.draw();
});

follow();
