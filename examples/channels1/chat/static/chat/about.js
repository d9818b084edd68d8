"use strict";

document.querySelector("#open").addEventListener("submit", (event) => {
  event.preventDefault();
  window.location.pathname = `/${event.target.label.value}/`;
});
