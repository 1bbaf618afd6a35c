// Without this everything works by links and forms. With it, a choice is applied at once and suggestions come as one types.
"use strict";
(() => {
  const here = () => location.pathname + location.search;
  const box = document.getElementById("q");
  const status = document.getElementById("status");
  let shown = here();
  let shows = 0;
  // The field that has the focus, wherever it is in the next page.
  const sameField = (field) => field && field.name && [...document.getElementsByName(field.name)]
    .find((it) => it.type !== "checkbox" || it.value === field.value);
  const show = async (url, byForm) => {
    const turn = ++shows;
    document.querySelector("main").classList.add("busy");
    const typed = box.value;
    let answer, page;
    try {
      answer = await fetch(url, { headers: { accept: "text/html" } });
      page = new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch (error) {
      return location.assign(url);
    }
    if (turn !== shows) return;
    const next = page.querySelector("main.layout");
    if (!next) return location.assign(url);
    const open = new Set([...document.querySelectorAll(".filters details[open]")].map((it) => it.dataset.facet));
    const focused = document.activeElement;
    const sheet = location.hash === "#filters";
    document.title = page.title;
    document.querySelector("main").replaceWith(next);
    document.querySelectorAll(".filters details").forEach((it) => { it.open = it.open || open.has(it.dataset.facet); });
    document.querySelector("header a[hreflang]").href = page.querySelector("header a[hreflang]").href;
    status.textContent = next.querySelector("h1").textContent;
    if (byForm && url !== here()) history.pushState(null, "", url);
    shown = here();
    // What is typed meanwhile stays.
    if (box.value === typed) box.value = page.getElementById("q").value;
    // A sheet that is open stays so: what it is the target of is set anew.
    if (sheet) location.replace("#filters");
    showSaved();
    const again = sameField(focused);
    if (again) again.focus({ preventScroll: true });
  };
  const address = (form) => {
    const asked = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value) asked.append(name, value);
    const query = asked.toString();
    return form.getAttribute("action") + (query ? "?" + query : "");
  };
  document.addEventListener("change", (event) => {
    const form = event.target.form;
    if (form && form.matches("[data-live]") && event.target !== box) show(address(form), true);
  });
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("[data-live]")) return;
    event.preventDefault();
    if (location.hash === "#filters") location.replace("#results");
    show(address(event.target), true);
  });
  addEventListener("popstate", () => {
    if (here() !== shown && document.querySelector("main.layout")) show(here(), false);
  });
  // Behind a photo the car is drawn: one that does not come goes.
  const isGone = (it) => it instanceof HTMLImageElement && it.complete && it.naturalWidth === 0;
  document.addEventListener("error", (event) => { if (isGone(event.target)) event.target.remove(); }, true);
  document.querySelectorAll("img.photo").forEach((it) => { if (isGone(it) && it.loading !== "lazy") it.remove(); });
  // Cars to keep in mind, in this browser alone.
  const SAVED = "forecourt.saved";
  const saved = () => { try { return new Set(JSON.parse(localStorage.getItem(SAVED) || "[]")); } catch (error) { return new Set(); } };
  const showSaved = () => {
    const ids = saved();
    document.querySelectorAll("[data-save]").forEach((it) => { it.hidden = false; it.ariaPressed = String(ids.has(it.dataset.save)); });
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("[data-save]");
    if (!button) return;
    const ids = saved();
    if (!ids.delete(button.dataset.save)) ids.add(button.dataset.save);
    try { localStorage.setItem(SAVED, JSON.stringify([...ids])); } catch (error) { return; }
    showSaved();
  });
  showSaved();
  // A saved search shows what it is told of as it comes.
  const matches = document.querySelector("[data-stream]");
  if (matches) new EventSource(matches.dataset.stream).addEventListener("match", async (event) => {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } }).catch(() => null);
    if (!answer || !answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    matches.replaceChildren(...page.getElementById("matches").children);
    showSaved();
    const listing = JSON.parse(event.data).listing;
    if (listing) status.textContent = listing.title;
  });
  // What may be meant, below the box: by the arrows and Enter, or by a click.
  const list = document.getElementById("suggestions");
  if (!box || !list) return;
  let asked = 0;
  let chosen = -1;
  box.setAttribute("role", "combobox");
  box.setAttribute("aria-autocomplete", "list");
  box.setAttribute("aria-controls", list.id);
  const open = (is) => { list.hidden = !is; box.setAttribute("aria-expanded", String(is)); if (!is) choose(-1); };
  const choose = (at) => {
    chosen = at;
    [...list.children].forEach((it, place) => it.setAttribute("aria-selected", String(place === at)));
    const it = list.children[at];
    if (it) { box.setAttribute("aria-activedescendant", it.id); it.scrollIntoView({ block: "nearest" }); } else box.removeAttribute("aria-activedescendant");
  };
  const take = (it) => { box.value = it.dataset.text; asked++; open(false); box.form.requestSubmit(); };
  const option = (it, place) => {
    const row = Object.assign(document.createElement("li"), { id: "suggestion-" + place });
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", "false");
    row.dataset.text = it.text;
    const count = Object.assign(document.createElement("span"), { className: "count", textContent: it.count.toLocaleString(document.documentElement.lang) });
    row.append(Object.assign(document.createElement("span"), { className: "name", textContent: it.text }), count);
    return row;
  };
  open(false);
  box.addEventListener("input", async () => {
    const turn = ++asked;
    const text = box.value.trim();
    if (!text) return open(false);
    const answer = await fetch("/v1/suggest?limit=8&q=" + encodeURIComponent(text)).catch(() => null);
    if (!answer || !answer.ok || turn !== asked || document.activeElement !== box) return;
    const found = (await answer.json()).suggestions;
    if (turn !== asked) return;
    list.replaceChildren(...found.map(option));
    open(found.length > 0);
  });
  box.addEventListener("keydown", (event) => {
    // What is asked for meanwhile comes too late.
    if (event.key === "Enter" && chosen < 0) { asked++; open(false); }
    if (list.hidden) return;
    const count = list.children.length;
    if (event.key === "ArrowDown") choose((chosen + 1) % count);
    else if (event.key === "ArrowUp") choose(chosen < 1 ? count - 1 : chosen - 1);
    else if (event.key === "Escape") open(false);
    else if (event.key === "Enter" && chosen >= 0) take(list.children[chosen]);
    else return;
    event.preventDefault();
  });
  box.addEventListener("blur", () => { asked++; open(false); });
  // The box keeps the focus while one is clicked.
  list.addEventListener("mousedown", (event) => event.preventDefault());
  list.addEventListener("click", (event) => { const it = event.target.closest("li"); if (it) take(it); });
})();
