"use strict";
// Shows /status.json, again and again, by changing only what has changed: what is selected, focused, opened or scrolled to
// stays. What comes from there is text, never markup: names and traces may hold anything.

const REFRESH = 2000, PATIENCE = 5000, LONGEST_PAUSE = 10000, DECISIONS = 100, WIDTH = 600;

const find = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function set(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// Puts `rows` into `parent` in that order. Those that are there already, and in order, are not touched.
function arrange(parent, rows) {
  const wanted = new Set(rows);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  let next = parent.firstElementChild;
  for (const row of rows) {
    if (row === next) next = next.nextElementSibling;
    else parent.insertBefore(row, next);
  }
}

// ---- Numbers and words ----

const whole = (number) => Math.round(number).toLocaleString("en");
const perSecond = (rate) => rate === 0 || rate >= 10 ? whole(rate) : rate.toFixed(1);
const percent = (share) => `${share > 0.995 && share < 1 ? ">99" : share > 0 && share < 0.01 ? "<1" : Math.round(share * 100)} %`;
// As in logs.
const clock = (seconds) => `${new Date(seconds * 1000).toISOString().slice(11, 19)} UTC`;
const many = (count, one, more = `${one}s`) => `${whole(count)} ${count === 1 ? one : more}`;

function millis(time) {
  if (time >= 10000) return `${(time / 1000).toFixed(0)} s`;
  if (time >= 1000) return `${(time / 1000).toFixed(1)} s`;
  return `${time >= 10 ? time.toFixed(0) : time.toFixed(1)} ms`;
}

function duration(seconds) {
  const steps = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 0, ""]];
  for (const [size, unit, part, name] of steps) {
    if (seconds < size) continue;
    const rest = part ? Math.floor(seconds % size / part) : 0;
    return `${Math.floor(seconds / size)} ${unit}${rest ? ` ${rest} ${name}` : ""}`;
  }
  return `${Math.floor(seconds)} s`;
}

const VERDICTS = {
  hit: (server) => `names ${server}, which can be used: this decided`,
  miss: () => "found nothing",
  invalid: () => "what the client sent names no server",
  expired: () => "there was an entry, but its time is over",
  down: (server) => `names ${server}, which is down`,
  maint: (server) => `names ${server}, which the operator has taken out`,
  ambiguous: (server) => `names ${server}, and several users share the key: this decided`,
  outvoted: (server) => `names ${server}, but another method had decided, or the client was moved away from there`,
  backup: (server) => `names ${server}, a backup that its users are to leave`,
};

const REQUEST_LETTERS = {
  N: "no cookie came", I: "the cookie that came names no server", D: "the cookie that came names a server that is down",
  V: "the cookie that came is valid", E: "the cookie that came was last seen too long ago",
  O: "the cookie that came was first seen too long ago", U: "a cookie came and was not used",
};

const RESPONSE_LETTERS = {
  N: "none was sent", I: "one was set", U: "it was set with a new date", P: "the server set its own, which was left",
  R: "the server's own was rewritten", D: "it was taken back",
};

function cookieWords(...words) {
  words = words.filter(Boolean);
  return words.length ? `Cookie: ${words.join("; ")}.` : "No method uses a cookie of the balancer.";
}

// `session:miss,cookie:hit>s2` and `balance>s1` → [{method, verdict, server}]
function steps(trace) {
  return trace.split(",").filter(Boolean).map((step) => {
    const [head, server = ""] = step.split(/>(.*)/s);
    const [, method, verdict] = /^(.*):([a-z]+)$/s.exec(head) ?? [null, head, ""];
    return { method, verdict, server };
  });
}

const stepItems = (list) => {
  const chosen = list.find(({ verdict }) => verdict === "hit" || verdict === "ambiguous")?.server;
  return list.map((step) => stepItem(step, chosen));
};

// `chosen` is the server that a method has decided for.
function stepItem({ method, verdict, server, found }, chosen) {
  const agrees = verdict === "outvoted" && server && server === chosen;
  const words = agrees ? `names ${server} as well: it agrees with what had decided` : VERDICTS[verdict]?.(server || "a server") ?? (verdict ? `${verdict} ${server}` : `chose ${server}`);
  const name = method === "balance" ? "--balance" : method;
  return make("li", {}, make("span", { className: "verdict", textContent: name }), ` ${found ? `(${found}) ` : ""}${words}`);
}

// ---- Charts ----

const SVG = "http://www.w3.org/2000/svg";

// Seconds that charts show: what there is, two minutes at least, so that one can see something after a start.
const windowOf = (samples) => samples.length ? Math.min(600, Math.max(120, samples.at(-1).at - samples[0].at)) : 600;

// A figure with a chart of one or two lines. `read` says in words what a sample is.
class Figure {
  constructor(id, { values, read, top }) {
    Object.assign(this, { values, read, top, samples: [] });
    this.article = find(id);
    [this.value, this.topLine, this.svg, this.note] =
      [".value", ".top", "svg", ".note"].map((part) => this.article.querySelector(part));
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} 100`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    const draw = (tag, name) => {
      const element = document.createElementNS(SVG, tag);
      element.setAttribute("class", name);
      return this.svg.appendChild(element);
    };
    this.area = draw("path", "area");
    this.lines = values.map((_, index) => draw("path", index ? "second" : ""));
    this.cursor = draw("line", "");
    this.svg.addEventListener("pointermove", (event) => {
      const box = this.svg.getBoundingClientRect();
      this.point((event.clientX - box.left) / box.width * WIDTH);
    });
    for (const leaving of ["pointerleave", "blur"]) this.svg.addEventListener(leaving, () => this.point(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.point(null);
  }

  // What it says, and the ten minutes up to `now`, in seconds of Unix time.
  show(value, unit, note, samples, now) {
    say(this.value.firstElementChild, value);
    say(this.value.lastElementChild, unit ? ` ${unit}` : "");
    Object.assign(this, { samples, now, window: windowOf(samples), parts: note });
    this.draw();
    this.tell();
  }

  x(sample) { return WIDTH - (this.now - sample.at) / this.window * WIDTH; }

  draw() {
    const all = this.values.flatMap((value) => this.samples.map(value)).filter((value) => value !== null);
    const peak = Math.max(0, ...all), scale = this.top?.limit ?? (peak || 1);
    say(this.topLine, all.length ? (this.top?.limit ? "" : `most ${this.top?.words(peak) ?? perSecond(peak)}`)
      : this.samples.length ? "" : "no samples yet");
    const y = (value) => (98 - Math.min(value / scale, 1) * 94).toFixed(1);
    this.values.forEach((value, index) => {
      let path = "", area = "", start = null, last = null;
      const close = () => {
        if (start !== null) area += `L${last} 98L${start} 98Z`;
        // Nothing would be seen of a sample that has none beside it.
        if (start !== null && start === last) path += `h${-WIDTH / 60}`;
        start = null;
      };
      for (const sample of this.samples) {
        const height = value(sample), x = this.x(sample).toFixed(1);
        if (height === null) { close(); continue; }
        const point = `${start === null ? "M" : "L"}${x} ${y(height)}`;
        path += point; area += point;
        start ??= x; last = x;
      }
      close();
      set(this.lines[index], "d", path);
      if (index === 0) set(this.area, "d", area);
    });
    const latest = this.samples.at(-1), title = this.article.querySelector("h3").textContent;
    const words = this.top?.words ?? perSecond, [first] = this.values;
    const firsts = this.samples.map(first).filter((value) => value !== null);
    set(this.svg, "aria-label", latest && firsts.length
      ? `${title}, ${find("figures-title").textContent.toLowerCase()}: ${this.read(latest)} now; from ${words(Math.min(...firsts))} to ${words(Math.max(...firsts))}`
      : `${title}: no samples yet`);
  }

  // The note under the chart, or what was at the cursor.
  tell() {
    const sample = this.samples.find(({ at }) => at === this.pinned) ?? (this.at === null ? null : this.nearest(this.at));
    const x = sample ? this.x(sample) : -9;
    for (const [name, value] of [["x1", x], ["x2", x], ["y1", 0], ["y2", 100]]) set(this.cursor, name, String(value));
    const parts = sample ? [`${clock(sample.at)}: ${this.read(sample)}`] : this.parts ?? [];
    const wanted = parts.map((part) => typeof part === "string" ? ["", part] : part);
    wanted.forEach(([name, text], index) => {
      const span = this.note.children[index] ?? this.note.appendChild(make("span"));
      if (span.className !== name) span.className = name;
      say(span, text);
    });
    while (this.note.children.length > wanted.length) this.note.lastChild.remove();
  }

  nearest(at) {
    const distance = (sample) => Math.abs(this.x(sample) - at);
    return this.samples.reduce((best, sample) => best && distance(best) <= distance(sample) ? best : sample, null);
  }

  point(at) {
    [this.at, this.pinned] = [at, null];
    this.tell();
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !this.samples.length) return;
    event.preventDefault();
    const pinned = this.samples.findIndex(({ at }) => at === this.pinned);
    const at = pinned >= 0 ? pinned : this.at === null ? -1 : this.samples.indexOf(this.nearest(this.at));
    const here = at < 0 ? this.samples.length : at + step;
    const index = Math.max(0, Math.min(this.samples.length - 1, here));
    // The sample stays the one that was asked for while the chart moves on.
    this.pinned = this.samples[index].at;
    this.tell();
  }
}

const figures = {
  requests: new Figure("figure-requests", {
    values: [(sample) => sample.requests_per_second],
    read: (sample) => `${perSecond(sample.requests_per_second)} a second`,
  }),
  latency: new Figure("figure-latency", {
    values: [(sample) => sample.p50_millis, (sample) => sample.p99_millis],
    read: (sample) => sample.p50_millis === null ? "no requests"
      : `half within about ${millis(sample.p50_millis)}, 99 % within about ${millis(sample.p99_millis)}`,
    top: { words: millis },
  }),
  failures: new Figure("figure-failures", {
    values: [(sample) => sample.failures_per_second],
    read: (sample) => `${perSecond(sample.failures_per_second)} a second`,
  }),
  connections: new Figure("figure-connections", {
    values: [(sample) => sample.connections_per_second, (sample) => sample.fast_per_second],
    read: ({ connections_per_second: proxy, fast_per_second: fast }) => fast === null
      ? `${perSecond(proxy)} a second` : `proxy ${perSecond(proxy)}, fast ${perSecond(fast)} a second`,
  }),
  fast: new Figure("figure-fast", {
    values: [fastShare],
    read: (sample) => fastShare(sample) === null ? "no new connections" : `${percent(fastShare(sample))} of new connections`,
    top: { limit: 1, words: percent },
  }),
};

// `null`: nothing was opened, or there is no fast path.
function fastShare(sample) {
  if (sample.fast_per_second === null) return null;
  const all = sample.fast_per_second + sample.connections_per_second;
  return all > 0 ? sample.fast_per_second / all : null;
}

function showFigures(status) {
  const { info, clients, responses, fast_path: fast } = status;
  // Where there is no fast path there is no line of it.
  const samples = status.history.samples.map((sample) => fast ? sample : { ...sample, fast_per_second: null });
  const now = status.now / 1000, latest = samples.at(-1);
  say(find("figures-title"), `The last ${Math.round(windowOf(samples) / 60)} minutes`);
  const show = (name, value, unit, note) => figures[name].show(value, unit, note, samples, now);
  // Like the other figures the mean of the last sample, so that it is not more than the most of them.
  show("requests", latest ? perSecond(latest.requests_per_second) : "–", latest ? "/s" : "",
    [...fast ? ["of the proxy, nobody looks into fast connections"] : [],
      `${many(latest?.in_flight ?? 0, "request")} in flight`, `${whole(status.waiting)} waiting for a server`]);
  const isKnown = latest && latest.p50_millis !== null;
  show("latency", isKnown ? `≈ ${millis(latest.p50_millis)}` : "–", isKnown ? "half of them" : "",
    [["key", "half of them"], ["key second", `99 %${isKnown ? `: ${millis(latest.p99_millis)}` : ""}`]]);
  show("failures", latest ? perSecond(latest.failures_per_second) : "–", latest ? "/s" : "",
    [`since the start ${many(responses["5xx"], "answer")} 5xx`, many(info.retries, "retry", "retries"), `${whole(info.redispatches)} moved`]);
  const opened = latest ? latest.connections_per_second + (latest.fast_per_second ?? 0) : null;
  const open = `${whole(clients.now)} open of ${whole(clients.limit)} at most`;
  show("connections", opened === null ? "–" : perSecond(opened), opened === null ? "" : "/s",
    fast ? [["key", "proxy"], ["key second", "fast"], open] : [open]);
  const path = info.datapath;
  const where = (path?.interfaces ?? []).map((at) => `${at.name} ${at.mode}`).join(", ");
  if (fast) {
    show("fast", fast.share === null ? "–" : percent(fast.share), fast.share === null ? "" : "of new connections",
      [`${many(fast.connections, "connection")} in the kernel now`, `${path?.forward}, XDP on ${where || "nothing"}`]);
  } else {
    show("fast", "off", "", ["everything goes through the proxy: there is no --xdp"]);
  }
}

// ---- Servers ----

const STATES = {
  down: { order: 0, sign: "▼" }, maint: { order: 1, sign: "■" }, drain: { order: 2, sign: "◐" }, up: { order: 3, sign: "●" },
};
const failuresOf = ({ failures, responses }) => failures.connect + failures.response + failures.broken_off + responses["5xx"];

const SORTED_BY = {
  name: (server) => server.name,
  state: (server) => STATES[server.state]?.order ?? -1,
  address: (server) => server.address ?? "",
  weight: (server) => server.effective_weight,
  stuck: (server) => server.entries ?? -1,
  now: (server) => server.in_flight + server.fast,
  rate: (server) => server.sessions_per_second,
  time: (server) => server.millis.response,
  failures: failuresOf,
  queue: (server) => server.queue,
};

const LABELS = { weight: "weight", stuck: "stuck", now: "now", rate: "requests/s", time: "answers in", failures: "failures", queue: "waiting" };

const order = { column: null, isDescending: false };
const serverRows = new Map();

function serverRow(name) {
  const row = make("tr");
  row.dataset.name = name;
  const parts = { row, sign: make("span", { ariaHidden: "true" }), gauge: make("span", { className: "gauge" }) };
  for (const column of Object.keys(SORTED_BY)) {
    const [main, detail] = [make("span"), make("small")], cell = make("td", {}, main, detail);
    cell.dataset.col = column;
    if (LABELS[column]) cell.dataset.label = LABELS[column];
    parts[column] = { cell, main, detail };
    row.append(cell);
  }
  parts.state.main.before(parts.sign, " ");
  parts.stuck.cell.append(parts.gauge);
  return parts;
}

// Why it is in its state, and since when.
function circumstances({ state, operator, health, seconds_in_state: since }) {
  const reasons = {
    down: "its check fails",
    maint: "by the operator",
    drain: operator === "drain" ? "by the operator" : "by its check",
    up: health === "unknown" ? "not checked" : "",
  };
  return [reasons[state], `for ${duration(since)}`].filter(Boolean).join(", ");
}

function fillServer(parts, server, totals) {
  const { row, sign, gauge } = parts;
  const fill = (column, text, small = "") => {
    const { main, detail } = parts[column];
    say(main, text);
    say(detail, small);
    detail.hidden = !small;
  };
  if (row.className !== server.state) row.className = server.state;
  fill("name", server.name, server.backup ? "backup" : "");
  fill("state", server.state, circumstances(server));
  say(sign, STATES[server.state]?.sign ?? "?");
  sign.className = parts.state.main.className = `state ${server.state}`;
  fill("address", server.address ?? "not resolved", server.host ?? "");
  const share = totals.weight && server.state === "up" ? percent(server.effective_weight / totals.weight) : "";
  const isRising = server.effective_weight < server.weight;
  fill("weight", isRising ? `${server.effective_weight.toFixed(1)} of ${server.weight}` : String(server.weight),
    server.backup === totals.isOnBackups && share ? `${share} of the new` : "");
  fill("stuck", server.entries === null ? "–" : whole(server.entries));
  gauge.style.width = `${totals.entries ? (server.entries ?? 0) / totals.entries * 100 : 0}%`;
  fill("now", whole(server.in_flight + server.fast), server.fast ? `${whole(server.fast)} of them fast` : "");
  fill("rate", whole(server.sessions_per_second));
  fill("time", server.sessions ? `${whole(server.millis.response)} ms` : "–");
  const { connect, response, broken_off: broken } = server.failures;
  const kinds = [[connect, "not reached"], [response, "no answer"], [broken, "broken off"], [server.responses["5xx"], "5xx"]];
  const found = kinds.filter(([count]) => count);
  const words = found.length === 1 ? found[0][1] : found.map(([count, what]) => `${whole(count)} ${what}`).join(", ");
  fill("failures", whole(failuresOf(server)), words);
  parts.queue.cell.classList.toggle("idle", server.maxconn === null && server.queue === 0);
  fill("queue", whole(server.queue), server.maxconn === null ? "" : `maxconn ${whole(server.maxconn)}`);
}

function sorted(servers) {
  const { column, isDescending } = order;
  if (!column) return servers;
  const by = SORTED_BY[column], compare = (a, b) => typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
  return [...servers].sort((a, b) => compare(by(a), by(b)) * (isDescending ? -1 : 1));
}

function showServers({ servers }) {
  const isTaking = (server) => server.state === "up";
  const isOnBackups = !servers.some((server) => isTaking(server) && !server.backup);
  const taking = servers.filter((server) => isTaking(server) && server.backup === isOnBackups);
  const totals = {
    isOnBackups,
    weight: taking.reduce((sum, server) => sum + server.effective_weight, 0),
    entries: Math.max(0, ...servers.map((server) => server.entries ?? 0)),
  };
  const names = new Set(servers.map((server) => server.name));
  for (const name of serverRows.keys()) if (!names.has(name)) serverRows.delete(name);
  const filter = find("server-filter").value.trim().toLowerCase();
  const isWanted = (server) => `${server.name} ${server.address} ${server.host ?? ""} ${server.state}`.toLowerCase().includes(filter);
  const shown = sorted(servers).filter(isWanted);
  for (const server of servers) {
    if (!serverRows.has(server.name)) serverRows.set(server.name, serverRow(server.name));
    fillServer(serverRows.get(server.name), server, totals);
  }
  arrange(find("servers").tBodies[0], shown.map((server) => serverRows.get(server.name).row));
  find("no-server").hidden = shown.length > 0;
  say(find("no-server"), servers.length ? "No server has that in its name, address or state." : "There is no server.");
  summarise(servers, shown.length);
}

function summarise(servers, shown) {
  const of = (state) => servers.filter((server) => server.state === state);
  const some = (list) => {
    const names = list.slice(0, 4).map((server) => server.name).join(", ");
    return list.length > 4 ? `${names} and ${list.length - 4} more` : names;
  };
  const parts = [`${of("up").length} of ${servers.length} up`];
  for (const state of ["down", "drain", "maint"]) {
    if (of(state).length) parts.push(`${state}: ${some(of(state))}`);
  }
  if (shown < servers.length) parts.push(`${shown} shown`);
  say(find("summary"), parts.join(" · "));
  find("summary").classList.toggle("bad", of("down").length > 0 || of("up").length === 0);
}

// ---- Tables ----

const tableRows = new Map();

function showTables({ tables }) {
  const rows = tables.map((table) => {
    if (!tableRows.has(table.name)) {
      const row = make("tr");
      row.dataset.name = table.name;
      for (const column of ["name", "entries", "timeout"]) {
        const cell = make("td");
        cell.dataset.col = column;
        row.append(cell);
      }
      row.children[1].append(make("span"), make("small"), make("span", { className: "gauge" }));
      tableRows.set(table.name, row);
    }
    const row = tableRows.get(table.name), [name, entries, timeout] = row.children, [count, size, gauge] = entries.children;
    say(name, table.name);
    say(count, whole(table.entries));
    const proof = table.probation ? `, ${whole(table.probation)} used once so far` : "";
    say(size, `of ${whole(table.size)}${proof}`);
    gauge.style.width = `${Math.min(100, table.entries / table.size * 100)}%`;
    say(timeout, duration(table.timeout));
    return row;
  });
  arrange(find("tables").tBodies[0], rows);
  find("tables").hidden = rows.length === 0;
  find("no-table").hidden = rows.length > 0;
}

// ---- Decisions ----

let lastStatus = null;
let decisionRows = new Map(), isPaused = false, isReading = false, lastDecisions = [];
// Where no request is read there is no status, and nothing is wrong with that.
const isTcp = () => lastStatus?.info.mode === "tcp";
const statusOf = ({ status }) => status ?? "–";
const methodsOf = ({ persist }) => persist.replaceAll(",", ", ");
const timeOf = ({ time }) => time.replace(/^.*T|Z$/g, "");
const serverOf = ({ server }) => server ?? "nobody";

// The newest first, each with a key of its own.
function keyed(decisions) {
  const seen = new Map();
  return decisions.map((decision) => {
    const text = JSON.stringify(decision), count = seen.get(text) ?? 0;
    seen.set(text, count + 1);
    const shown = [timeOf(decision), decision.client ?? "", statusOf(decision), serverOf(decision), decision.letters, methodsOf(decision)];
    return { ...decision, key: `${count} ${text}`, text: shown.join(" ").toLowerCase() };
  }).reverse();
}

function decisionRow(decision) {
  const more = make("button", { type: "button", className: "more", ariaExpanded: "false", ariaLabel: `In words: ${timeOf(decision)}` });
  const row = make("tr", {}, make("td", {}, more));
  const status = statusOf(decision);
  const columns = {
    time: timeOf(decision), client: decision.client ?? "", status, server: serverOf(decision),
    letters: decision.letters, persist: methodsOf(decision),
  };
  for (const [column, text] of Object.entries(columns)) {
    const cell = make("td", { textContent: text });
    cell.dataset.col = column;
    if (column === "client") cell.className = "client";
    if (column === "status" && (status >= 500 || status === "–" && !isTcp())) cell.className = "bad";
    row.append(cell);
  }
  const entry = { row, decision, detail: null };
  more.addEventListener("click", () => {
    entry.detail = entry.detail ? null : detailRow(decision);
    more.ariaExpanded = String(Boolean(entry.detail));
    // On a busy service it would be gone before it is read.
    if (entry.detail && !isPaused) isPaused = isReading = true;
    if (isReading && ![...decisionRows.values()].some(({ detail }) => detail)) isPaused = isReading = false;
    tellPause();
  });
  return entry;
}

function detailRow(decision) {
  const list = make("ol", {}, ...stepItems(steps(decision.persist)));
  const end = decision.server === null ? "No server was asked." : `${decision.server} was asked.`;
  const none = isTcp() ? "" : " Nobody could be given an answer.";
  const outcome = decision.status === null ? none : ` The answer was ${decision.status}.`;
  const cell = make("td", { colSpan: 7 }, make("p", { textContent: decision.time }), list,
    make("p", { textContent: `${end}${outcome} ${cookieWords(REQUEST_LETTERS[decision.letters[0]], RESPONSE_LETTERS[decision.letters[1]])}` }));
  return make("tr", { className: "detail" }, cell);
}

function showDecisions(decisions) {
  if (decisions && !isPaused) lastDecisions = keyed(decisions);
  const filter = find("decision-filter").value.trim().toLowerCase();
  const shown = lastDecisions.filter((decision) => decision.text.includes(filter));
  const kept = new Map();
  for (const decision of lastDecisions) kept.set(decision.key, decisionRows.get(decision.key) ?? decisionRow(decision));
  decisionRows = kept;
  // What is being read stays where it is when rows come in above it.
  const box = find("decisions").parentElement;
  const anchor = box.scrollTop > 0 && [...find("decisions").tBodies[0].rows].find((row) => row.offsetTop >= box.scrollTop);
  const before = anchor?.offsetTop, focused = document.activeElement;
  arrange(find("decisions").tBodies[0], shown.flatMap(({ key }) => {
    const { row, detail } = kept.get(key);
    return detail ? [row, detail] : [row];
  }));
  // The oldest have gone, and whoever was there goes on with the one that is the oldest now.
  if (!focused.isConnected) box.querySelector("tbody tr:last-child .more")?.focus({ preventScroll: true });
  if (anchor?.isConnected) box.scrollTop += anchor.offsetTop - before;
  find("decisions").classList.toggle("without-clients", !lastDecisions.some((decision) => decision.client));
  find("no-decision").hidden = shown.length > 0;
  say(find("no-decision"), lastDecisions.length ? "No decision has that in it." : "No request since the start.");
  const count = filter ? `${shown.length} of ${lastDecisions.length}` : lastDecisions.length ? `the last ${lastDecisions.length}` : "";
  say(find("decisions-count"), `${isPaused ? "paused: " : ""}${count}`);
}

function togglePause() {
  [isPaused, isReading] = [!isPaused, false];
  tellPause();
}

function tellPause() {
  set(find("pause"), "aria-pressed", String(isPaused));
  showDecisions();
}

// ---- Explain ----

let questions = 0;

async function explain(event) {
  event.preventDefault();
  const number = ++questions;
  const value = (id) => find(id).value, question = new URLSearchParams({ src: value("explain-src").trim() });
  question.set("method", value("explain-method").trim() || "GET");
  question.set("path", value("explain-path").trim() || "/");
  for (const line of value("explain-headers").split("\n")) if (line.trim()) question.append("header", line.trim());
  const wrong = (text, isAddress) => {
    say(find("explain-error"), text);
    set(find("explain-src"), "aria-invalid", String(Boolean(isAddress)));
    if (text) find("explain-result").replaceChildren();
    if (isAddress) find("explain-src").focus();
  };
  if (!question.get("src")) return wrong("Whose request? Write the address of the client.", true);
  let answer, status;
  try {
    // Some headers are secrets: they are in the request, and stay out of the page's address and history.
    const response = await fetch(`/explain.json?${question}`, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    status = response.status;
    answer = status === 431 ? { error: "That is too long to be asked here; use `balancer explain`." } : await response.json();
  } catch {
    if (number === questions) wrong("The balancer has not answered; try again.");
    return;
  }
  // An answer to a question of before is no answer to this one.
  if (number !== questions) return;
  if (status === 403) {
    find("explain").hidden = true;
    find("explain-refused").hidden = false;
    return say(find("explain-refused"), `Not here: ${answer.error}.`);
  }
  if (answer.error) return wrong(sentence(answer.error), answer.error.includes("is not an address"));
  wrong("");
  find("explain-result").replaceChildren(...explained(answer));
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;

function explained(answer) {
  const parts = [];
  const add = (tag, properties, ...children) => parts.push(make(tag, properties, ...children));
  const servers = answer.servers.length ? answer.servers.join(", ") : "nobody";
  add("p", { className: "answer", textContent: `→ ${servers}` });
  add("p", { textContent: `Decided by ${answer.decided_by}.${answer.servers.length > 1 ? " These are the candidates, in today's order." : ""}` });
  if (answer.ignored) add("p", { textContent: "--persist-ignore names the path: no method is asked." });
  if (answer.methods.length) {
    add("h3", { textContent: "What the methods say" });
    add("ol", {}, ...stepItems(answer.methods));
  }
  add("h3", { textContent: "What an answer would write" });
  if (answer.writes.length) add("ul", {}, ...answer.writes.map((text) => make("li", { textContent: text })));
  else add("p", { textContent: "Nothing." });
  add("p", { textContent: cookieWords(REQUEST_LETTERS[answer.letters[0]]) });
  add("h3", { textContent: "A new connection would be" });
  add("p", {}, make("b", { textContent: answer.path }), `: ${answer.path_reason}`);
  return parts;
}

// ---- The header, and the round ----

let lastAnswer = null, firstVersion = null, pause = REFRESH, timer = null, isAsking = false;

function showHeader({ info, ready, servers }) {
  document.title = `${info.name} – balancer`;
  say(find("service"), info.name);
  const serves = servers.some(({ state }) => state === "up" || state === "drain");
  const [word, kind] = info.draining ? ["draining", "warn"] : !ready ? ["not ready", "warn"]
    : serves ? ["ready", "good"] : ["no server can serve", "bad"];
  say(find("ready"), word);
  find("ready").className = `badge ${kind}`;
  say(find("version"), `balancer ${info.version},`);
  say(find("uptime"), `up ${duration(info.uptime_seconds)},`);
  say(find("listen"), `on ${info.listen.join(" ")}`);
  find("warnings").hidden = info.warnings.length === 0;
  arrangeTexts(find("warnings"), info.warnings);
}

function arrangeTexts(list, texts) {
  texts.forEach((text, index) => say(list.children[index] ?? list.appendChild(make("li")), text));
  while (list.children.length > texts.length) list.lastChild.remove();
}

function show(status) {
  showHeader(status);
  showFigures(status);
  showServers(status);
  showTables(status);
  showDecisions(status.decisions);
}

function notice(text) {
  say(find("notice"), text);
  find("notice").hidden = !text;
}

async function ask() {
  if (isAsking) return;
  isAsking = true;
  clearTimeout(timer);
  try {
    const response = await fetch(`/status.json?decisions=${DECISIONS}`, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const status = await response.json();
    firstVersion ??= status.info.version;
    lastStatus = status;
    show(status);
    [lastAnswer, pause] = [Date.now(), REFRESH];
    document.body.classList.remove("stale");
    notice(firstVersion === status.info.version ? ""
      : `The balancer was upgraded to ${status.info.version}: reload this page.`);
  } catch (error) {
    const since = lastAnswer ? clock(lastAnswer / 1000) : "this page was opened";
    const why = error instanceof TypeError && /fetch/i.test(error.message) ? "it cannot be reached"
      : error.name === "TimeoutError" ? "it says nothing" : `its answer is not understood (${error.message})`;
    say(find("ready"), "no answer");
    find("ready").className = "badge bad";
    notice(`The balancer has given no answer since ${since}: ${why}. What stands here is old; this page goes on asking.`);
    document.body.classList.add("stale");
    pause = Math.min(pause * 1.5, LONGEST_PAUSE);
  } finally {
    isAsking = false;
    tellAge();
    if (!document.hidden) timer = setTimeout(ask, pause);
  }
}

function tellAge() {
  if (lastAnswer) {
    const seconds = Math.floor((Date.now() - lastAnswer) / 1000);
    say(find("age"), seconds < 4 ? "updated a moment ago" : `updated ${duration(seconds)} ago`);
  }
}

// ---- What people do ----

function sortBy(header) {
  const column = header.dataset.col;
  // Once for the one direction, twice for the other, three times for the order of the flags. Of numbers the largest come first.
  const isText = ["name", "address", "state"].includes(column);
  if (order.column !== column) Object.assign(order, { column, isDescending: !isText });
  else if (order.isDescending === !isText) order.isDescending = isText;
  else order.column = null;
  for (const other of find("servers").tHead.rows[0].cells) {
    if (other.dataset.col === order.column) other.ariaSort = order.isDescending ? "descending" : "ascending";
    else other.removeAttribute("aria-sort");
  }
  if (lastStatus) showServers(lastStatus);
}

const KEYS = {
  "?": () => find("keys").showModal(),
  "/": () => find("server-filter").focus(),
  p: togglePause,
  e: () => find("explain-src").focus(),
};

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input, textarea");
  if (isTyping && event.key === "Escape") event.target.blur();
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || find("keys").open || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});
for (const header of find("servers").tHead.rows[0].cells) {
  header.querySelector("button").addEventListener("click", () => sortBy(header));
}
find("server-filter").addEventListener("input", () => lastStatus && showServers(lastStatus));
find("decision-filter").addEventListener("input", () => showDecisions());
find("pause").addEventListener("click", togglePause);
find("help").addEventListener("click", KEYS["?"]);
find("keys-close").addEventListener("click", () => find("keys").close());
find("explain").addEventListener("submit", explain);
document.addEventListener("visibilitychange", () => document.hidden ? clearTimeout(timer) : ask());
setInterval(tellAge, 1000);
ask();
