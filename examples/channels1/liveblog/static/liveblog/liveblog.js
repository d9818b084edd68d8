"use strict";

const scheme = window.location.protocol === "https:" ? "wss" : "ws";
const socket = new WebSocket(`${scheme}://${window.location.host}/liveblog/`);

socket.onmessage = (event) => {
  const entry = document.createElement("p");
  entry.textContent = JSON.parse(event.data).content;
  document.querySelector("#updates").prepend(entry);
};
