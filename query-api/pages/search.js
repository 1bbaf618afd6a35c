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
    if (!answer.ok || !next) return location.assign(url);
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
  const list = document.getElementById("suggestions");
  let asked = 0;
  box && list && box.addEventListener("input", async () => {
    const turn = ++asked;
    const text = box.value.trim();
    if (!text) return list.replaceChildren();
    const answer = await fetch("/v1/suggest?limit=8&q=" + encodeURIComponent(text)).catch(() => null);
    if (!answer || !answer.ok || turn !== asked) return;
    const found = (await answer.json()).suggestions;
    list.replaceChildren(...found.map((it) => Object.assign(document.createElement("option"), { value: it.text })));
  });
})();
