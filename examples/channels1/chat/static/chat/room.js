"use strict";

const scheme = window.location.protocol === "https:" ? "wss" : "ws";
const address = `${scheme}://${window.location.host}/chat${window.location.pathname}`;
const state = document.querySelector("#state");
let socket;

function connect() {
  socket = new WebSocket(address);
  socket.onopen = () => {
    state.textContent = "";
  };
  socket.onmessage = (event) => {
    const { timestamp, handle, message } = JSON.parse(event.data);
    const row = document.querySelector("#chat").insertRow();
    for (const text of [timestamp, handle, message]) {
      row.insertCell().textContent = text;
    }
  };
  socket.onclose = () => {
    state.textContent = "Not connected; trying again.";
    setTimeout(connect, 1000 + Math.random() * 2000);
  };
}

document.querySelector("#chatform").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = document.querySelector("#message");
  if (socket.readyState === WebSocket.OPEN) {
    const handle = document.querySelector("#handle").value;
    socket.send(JSON.stringify({ handle, message: field.value }));
    field.value = "";
  }
});

connect();
