// Without this a query is run by its form. With it, it can be cancelled, past ones come back, and a click writes names.
"use strict";
(() => {
  const form = document.getElementById("sql");
  const box = document.getElementById("query");
  const button = document.getElementById("run");
  const answer = document.getElementById("answer");
  const run = button.textContent;
  const KEPT = "forecourt.queries";
  const past = () => { try { return JSON.parse(localStorage.getItem(KEPT) || "[]"); } catch (error) { return []; } };
  const showPast = () => {
    const queries = past();
    const label = document.getElementById("past");
    label.hidden = queries.length === 0;
    const options = ["", ...queries].map((text) => Object.assign(document.createElement("option"), { value: text, textContent: text.replace(/\s+/g, " ").slice(0, 60) }));
    label.querySelector("select").replaceChildren(...options);
  };
  let running = null;
  const ask = async (url, push) => {
    if (running) running.abort();
    const mine = (running = new AbortController());
    button.textContent = form.dataset.cancel;
    answer.classList.add("busy");
    try {
      const text = await (await fetch(url, { headers: { accept: "text/html" }, signal: mine.signal })).text();
      const page = new DOMParser().parseFromString(text, "text/html");
      answer.replaceChildren(...page.getElementById("answer").childNodes);
      if (push) history.pushState(null, "", url);
      const query = box.value.trim();
      try { localStorage.setItem(KEPT, JSON.stringify([query, ...past().filter((it) => it !== query)].slice(0, 30))); } catch (error) { /* nothing is kept */ }
      showPast();
    } catch (error) {
      if (error.name !== "AbortError") location.assign(url);
    }
    if (running === mine) {
      running = null;
      button.textContent = run;
      answer.classList.remove("busy");
    }
  };
  const address = () => "/sql?" + new URLSearchParams(new FormData(form));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) return running.abort();
    ask(address(), true);
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); ask(address(), true); }
  });
  document.querySelector("#past select").addEventListener("change", (event) => { if (event.target.value) box.value = event.target.value; });
  document.addEventListener("dblclick", (event) => {
    const named = event.target.closest("[data-table], [data-column]");
    if (named) box.setRangeText(named.dataset.table || named.dataset.column, box.selectionStart, box.selectionEnd, "end");
  });
  addEventListener("popstate", () => location.reload());
  showPast();
})();
