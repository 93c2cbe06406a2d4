"use strict";

// become makes an element what another one is, and leaves what is alike as it is: focus,
// selection and what is unfolded stay.
function become(old, now) {
  if (old.nodeType !== now.nodeType || old.nodeName !== now.nodeName) {
    old.replaceWith(now.cloneNode(true));
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== now.nodeValue) old.nodeValue = now.nodeValue;
    return;
  }
  const folds = old.nodeName === "DETAILS";
  for (const a of [...old.attributes]) {
    if (!now.hasAttribute(a.name) && !(folds && a.name === "open")) old.removeAttribute(a.name);
  }
  for (const a of now.attributes) {
    if (old.getAttribute(a.name) !== a.value && !(folds && a.name === "open")) old.setAttribute(a.name, a.value);
  }
  contain(old, now);
}

// contain gives an element the children of another one.
function contain(old, now) {
  const was = [...old.childNodes];
  const is = [...now.childNodes];
  is.forEach((child, i) => (i < was.length ? become(was[i], child) : old.append(child.cloneNode(true))));
  was.slice(is.length).forEach((child) => child.remove());
}

const parse = (html) => new DOMParser().parseFromString(html, "text/html");

// Live updates. The server tells the parts that have changed, each under the id of its
// element.
const link = document.getElementById("link");

function listen() {
  const source = new EventSource("events");
  source.onopen = () => { link.textContent = "· live"; };
  source.onerror = () => {
    link.textContent = "· not connected, trying again";
    // A refusal is final for the browser, but not for the page.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 10000);
  };
  for (const part of document.querySelectorAll("[data-live]")) {
    source.addEventListener(part.id, (e) => contain(part, parse(e.data).body));
  }
  window.addEventListener("pagehide", () => source.close(), { once: true });
}
listen();
window.addEventListener("pageshow", (e) => { if (e.persisted) listen(); });

// The look-up, without loading the page anew.
const form = document.getElementById("lookup");
const answer = document.getElementById("answer");

form.addEventListener("submit", async (e) => {
  e.preventDefault();
  const url = "?" + new URLSearchParams(new FormData(form));
  try {
    const page = parse(await (await fetch(url, { cache: "no-store" })).text());
    contain(answer, page.getElementById("answer"));
    history.replaceState(null, "", url);
  } catch {
    answer.textContent = "Sluice does not answer. Try again when the page is live.";
  }
});
