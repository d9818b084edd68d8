/*
 * channels.WebSocketBridge: JSON messages over a WebSocket that reconnects, whole or on streams.
 *
 *     const bridge = new channels.WebSocketBridge();
 *     bridge.connect("/updates/");
 *     bridge.listen((message, stream) => console.log(message, stream));
 *     bridge.demultiplex("prices", (payload, stream) => console.log(payload));
 *     bridge.stream("prices").send({action: "subscribe"});
 *     bridge.socket.addEventListener("open", () => console.log("connected"));
 *
 * A message on a stream is {"stream": name, "payload": anything}; the server's side of it is
 * WebsocketDemultiplexer.
 */
(function (root) {
  "use strict";

  const DEFAULTS = {
    /* Milliseconds before the first new attempt, and the most; each attempt waits longer by the
     * factor.  Of each wait up to a half is left out by chance: a server that comes back is not
     * called by all of its clients at once. */
    minReconnectionDelay: 1500,
    maxReconnectionDelay: 10000,
    reconnectionDelayGrowFactor: 1.3,
    /* Milliseconds within which an attempt must have succeeded. */
    connectionTimeout: 4000,
    /* Attempts that fail one after the other, before no more are made. */
    maxRetries: Infinity,
    /* Messages that are kept until the socket is open. */
    maxQueuedMessages: 100,
    /* Whether each step is logged to the console. */
    debug: false,
  };

  const EVENTS = ["open", "message", "close", "error"];

  /* Looks like a WebSocket, and opens another one when that closes. */
  class ReconnectingSocket extends EventTarget {
    constructor(url, protocols, options) {
      super();
      this.url = url;
      this.options = Object.assign({}, DEFAULTS, options);
      this.retries = 0;
      this.dropped = 0;
      this.onopen = this.onmessage = this.onclose = this.onerror = null;
      this._protocols = protocols;
      this._binaryType = "blob";
      this._queue = [];
      this._keepClosed = false;
      this._timer = null;
      this._open();
    }

    get readyState() { return this._socket.readyState; }
    get protocol() { return this._socket.protocol; }
    get extensions() { return this._socket.extensions; }
    get bufferedAmount() { return this._socket.bufferedAmount; }
    get binaryType() { return this._binaryType; }
    set binaryType(value) { this._binaryType = this._socket.binaryType = value; }

    /* Sends at once, or when the socket is open; throws if too many messages wait for that. */
    send(data) {
      if (this.readyState === WebSocket.OPEN) {
        this._socket.send(data);
      } else if (this._queue.length < this.options.maxQueuedMessages) {
        this._queue.push(data);
      } else {
        this.dropped += 1;
        throw new Error(
          `Not connected, and ${this._queue.length} messages wait already (maxQueuedMessages): ` +
          "this one is dropped."
        );
      }
    }

    /* Closes the socket; another one is opened, unless keepClosed is set. */
    close(code = 1000, reason = "", {keepClosed = false} = {}) {
      this._keepClosed = keepClosed;
      if (keepClosed) clearTimeout(this._timer);
      this._socket.close(code, reason);
    }

    _open() {
      this._log("connecting to", this.url);
      const socket = this._socket =
        this._protocols === undefined
          ? new WebSocket(this.url)
          : new WebSocket(this.url, this._protocols);
      socket.binaryType = this._binaryType;
      const timeout = setTimeout(() => socket.close(), this.options.connectionTimeout);
      socket.addEventListener("open", () => {
        clearTimeout(timeout);
        this.retries = 0;
      });
      socket.addEventListener("close", () => {
        clearTimeout(timeout);
        if (!this._keepClosed) this._openLater();
      });
      for (const name of EVENTS) {
        socket.addEventListener(name, (event) => this._pass(name, event));
      }
      /* After what the page's own listeners send first, to log in for example. */
      socket.addEventListener("open", () => {
        for (const data of this._queue.splice(0)) socket.send(data);
      });
    }

    _openLater() {
      const {minReconnectionDelay, maxReconnectionDelay, reconnectionDelayGrowFactor, maxRetries} =
        this.options;
      if (this.retries >= maxRetries) {
        this._log("gave up after", this.retries, "attempts");
        return;
      }
      const wait = Math.min(
        minReconnectionDelay * Math.pow(reconnectionDelayGrowFactor, this.retries),
        maxReconnectionDelay
      );
      this.retries += 1;
      this._timer = setTimeout(() => this._open(), wait * (0.5 + Math.random() / 2));
    }

    _pass(name, event) {
      this._log(name, event);
      const copy = new event.constructor(name, event);
      const handler = this["on" + name];
      if (typeof handler === "function") handler.call(this, copy);
      this.dispatchEvent(copy);
    }

    _log(...what) {
      if (this.options.debug) console.log("WebSocketBridge:", ...what);
    }
  }

  class WebSocketBridge {
    /* The options are those of DEFAULTS above. */
    constructor(options) {
      this.options = Object.assign({}, options);
      this.socket = null;
      this.streams = {};
      this.default_cb = null;
      this._listens = false;
    }

    /* Opens the socket: a path or a URL; without one the root of the page's server. */
    connect(url, protocols, options) {
      if (this.socket !== null) this.socket.close(1000, "", {keepClosed: true});
      const target = new URL(url === undefined ? "/" : url, root.location.href);
      target.protocol = target.protocol.replace("http", "ws");
      this.socket = new ReconnectingSocket(
        target.href, protocols, Object.assign({}, this.options, options)
      );
      if (this._listens) this._listen();
    }

    /* Hands out messages from now on: those of a stream to its callback, others to this one. */
    listen(callback) {
      this.default_cb = callback === undefined ? null : callback;
      this._listens = true;
      if (this.socket !== null) this._listen();
    }

    /* Sets the callback of a stream, which gets the payload and the stream's name. */
    demultiplex(stream, callback) {
      this.streams[stream] = callback;
    }

    /* Sends a message as JSON. */
    send(message) {
      this.socket.send(JSON.stringify(message));
    }

    /* A stream, to send on. */
    stream(name) {
      return {send: (payload) => this.send({stream: name, payload: payload})};
    }

    _listen() {
      this.socket.onmessage = (event) => {
        let message;
        try {
          message = JSON.parse(event.data);
        } catch (error) {
          console.error("WebSocketBridge: a message that is no JSON is ignored:", error);
          return;
        }
        const isOnStream = message !== null && typeof message === "object" && "stream" in message;
        const stream = isOnStream ? message.stream : null;
        const isKnown = Object.prototype.hasOwnProperty.call(this.streams, stream);
        const callback = isOnStream && isKnown ? this.streams[stream] : this.default_cb;
        if (callback) callback(isOnStream ? message.payload : message, stream);
      };
    }
  }

  root.channels = Object.assign(root.channels || {}, {WebSocketBridge: WebSocketBridge});
})(window);
