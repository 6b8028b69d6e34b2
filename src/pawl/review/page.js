"use strict";
// Every text from the server is set as text, never as markup.

const $ = (id) => document.getElementById(id);
const KEPT = "pawl-review-session";
let session = sessionStorage.getItem(KEPT) || "";
let item = null;
let verdict = null;
let raw = false;
let busy = false;

async function ask(path, body) {
  const headers = { Accept: "application/json" };
  if (session) headers.Authorization = `Bearer ${session}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, {
    method: body === undefined ? "GET" : "POST",
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
    credentials: "omit",
  });
  const told = await answer.json().catch(() => ({ problem: "The server's answer cannot be read." }));
  if (!answer.ok) {
    const error = new Error(told.problem || `The server refused (${answer.status}).`);
    error.status = answer.status;
    throw error;
  }
  return told;
}

function notice(title, text) {
  $("item").hidden = true;
  $("notice").hidden = false;
  $("notice-title").textContent = title;
  $("notice-text").textContent = text;
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

function turn(message) {
  const whole = document.createElement("div");
  whole.className = "turn";
  const role = document.createElement("p");
  role.className = "role";
  role.textContent = message.role;
  const text = document.createElement("pre");
  text.textContent = message.text;
  text.tabIndex = 0;
  // Code and data are set in a typewriter's letters, sentences are not.
  if (!/[{}[\];]/.test(message.text)) text.className = "prose";
  whole.append(role, text);
  return whole;
}

function show(state) {
  const { progress } = state;
  const all = progress.mine + progress.left;
  document.title = `${progress.mine} of ${all} · ${state.agent}`;
  $("agent").textContent = state.agent;
  $("rater").textContent = state.rater;
  $("count").textContent = `${progress.mine} of ${all} rated`;
  $("progress").max = Math.max(1, all);
  $("progress").value = progress.mine;
  item = state.item;
  if (item === null) {
    const missing = progress.wanted - progress.given;
    const rest = missing ? ` ${missing} more ratings are needed, from other people.` : " Every answer has all its ratings.";
    notice("That was the last one. Thank you!", `All you rated is saved.${rest} You can close this page.`);
    return;
  }
  $("notice").hidden = true;
  $("item").hidden = false;
  $("question").textContent = state.question;
  $("prompt").replaceChildren(...item.prompt.map(turn));
  $("correction").value = item.editable;
  $("correction").rows = Math.min(40, item.editable.split("\n").length + 2);
  item.untouched = $("correction").value; // as the browser keeps it
  correcting(false);
  $("comment").value = "";
  raw = false;
  choose(null);
  draw();
  problem("");
  for (const part of document.querySelectorAll("pre")) part.scrollTop = 0;
  window.scrollTo(0, 0);
  document.activeElement?.blur();
}

function draw() {
  $("answer").textContent = raw ? item.as_sent : item.answer;
  $("raw").setAttribute("aria-pressed", String(raw));
}

function choose(what) {
  verdict = what;
  for (const button of document.querySelectorAll("[data-verdict]")) {
    button.setAttribute("aria-pressed", String(button.dataset.verdict === what));
  }
  $("send").disabled = what === null;
}

function correcting(on) {
  $("correcting").hidden = !on;
  $("answer").hidden = on;
  $("answered").textContent = on ? "Your corrected answer" : "Answer";
  $("raw").hidden = on || item.as_sent === item.answer;
}

function correct() {
  if ($("correcting").hidden) {
    correcting(true);
    $("correction").setSelectionRange(0, 0);
    $("correction").scrollTop = 0;
  }
  if (verdict === null) choose("wrong");
  $("correction").focus({ preventScroll: true });
}

function discard() {
  $("correction").value = item.untouched;
  correcting(false);
}

async function save() {
  if (busy || item === null) return;
  if (verdict === null) {
    problem("Choose first: 1 right, 2 wrong, 3 can’t say.");
    return;
  }
  busy = true;
  $("send").disabled = true;
  const typed = $("correction").value;
  const said = {
    item: item.id,
    verdict,
    comment: $("comment").value,
    correction: typed === item.untouched ? "" : typed,
  };
  try {
    show(await ask("/ratings", said));
  } catch (error) {
    $("send").disabled = false;
    if (error.status === 401) lost(error);
    else if (error.status === 409) await resume();
    else if (error.status) problem(error.message);
    else problem("Not saved: the server does not answer. Is it still running? What you typed stays here; save again.");
  } finally {
    busy = false;
  }
}

function lost(error) {
  sessionStorage.removeItem(KEPT);
  notice("This page cannot go on", error.message);
}

async function resume() {
  try {
    show(await ask("/next"));
  } catch (error) {
    if (error.status === 401) lost(error);
    else notice("This page cannot go on", error.status ? error.message : "The server does not answer. Start it, then reload.");
  }
}

async function start() {
  const token = location.hash.slice(1);
  // Out of the address bar and the history: a link is for one use.
  if (token) history.replaceState(null, "", location.pathname);
  if (token) {
    try {
      const told = await ask("/enter", { token });
      session = told.session;
      sessionStorage.setItem(KEPT, session);
      show(told);
      return;
    } catch (error) {
      if (!session) {
        notice("This link cannot be used", error.status ? error.message : "The server does not answer.");
        return;
      }
    }
  }
  if (session) await resume();
  else notice("You need a link", "Ask whoever runs this review for a link of your own; each works once.");
}

document.addEventListener("keydown", (event) => {
  if (item === null || $("item").hidden) return;
  const typing = /^(INPUT|TEXTAREA)$/.test(document.activeElement?.tagName || "");
  if (event.key === "Escape" && typing) {
    document.activeElement.blur();
    return;
  }
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey || document.activeElement?.tagName !== "TEXTAREA")) {
    // A focused button other than the one that saves does what it says.
    if (document.activeElement?.tagName === "BUTTON" && document.activeElement.id !== "send" && !event.ctrlKey) return;
    event.preventDefault();
    if (!event.repeat) save();
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const keys = {
    1: () => choose("right"),
    2: () => choose("wrong"),
    3: () => choose("cannot_say"),
    e: correct,
    c: () => $("comment").focus(),
    r: () => $("raw").click(),
  };
  const act = keys[event.key.toLowerCase()];
  if (act) {
    event.preventDefault();
    act();
  }
});
for (const button of document.querySelectorAll("[data-verdict]")) {
  button.addEventListener("click", () => { choose(button.dataset.verdict); button.blur(); });
}
$("raw").addEventListener("click", () => { raw = !raw; draw(); });
$("correct").addEventListener("click", correct);
$("discard").addEventListener("click", discard);
$("rating").addEventListener("submit", (event) => { event.preventDefault(); save(); });
window.addEventListener("hashchange", start);
start();
