// Without this the page is as of when it was loaded. With it, tiles and chart follow what changes, in their places.
"use strict";
(() => {
  const EVERY_MS = 2000;
  const tiles = document.querySelector("[data-poll]");
  if (!tiles) return;
  let tag = null;
  const follow = async () => {
    if (document.hidden) return;
    const headers = tag ? { "if-none-match": tag } : {};
    const answer = await fetch(tiles.dataset.poll, { headers, cache: "no-store" });
    if (answer.status !== 200) return;
    const first = tag === null;
    tag = answer.headers.get("etag");
    if (first) return;
    const text = await (await fetch(location.href, { headers: { accept: "text/html" }, cache: "no-store" })).text();
    const page = new DOMParser().parseFromString(text, "text/html");
    // What changed is replaced where it is; what has the focus or is open stays so.
    for (const next of page.querySelectorAll(".tile, [data-live], #fresh")) {
      const now = document.getElementById(next.id);
      if (now && now.innerHTML !== next.innerHTML) now.innerHTML = next.innerHTML;
    }
  };
  const loop = async () => {
    await follow().catch(() => null);
    setTimeout(loop, EVERY_MS);
  };
  loop();
  document.querySelectorAll("form.period select").forEach((it) => it.addEventListener("change", () => it.form.requestSubmit()));
})();
