/* What the machine can do: a WebSocket and HTTP server on epoll that does nothing but its job,
 * with one system call per message and connection.  The figures of a real server are stated as a
 * ratio to these, measured in the same minute.
 *
 *     limit PORT
 *
 *     /echo...   each message goes back to its sender
 *     /hello...  a plain request is answered with the same few bytes
 *     others     each message goes to every connection
 *
 * It trusts its client: it is no server for anything else.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HELD_BYTES = 1 << 15, MOST_EVENTS = 256, BACKLOG = 4096 };

struct connection {
    int fd;
    int place; /* in the list of open WebSockets, or -1 */
    bool is_echo;
    size_t held;
    uint8_t data[HELD_BYTES];
};

static int poll_fd;
static struct connection **open_ones;
static int open_count, open_room;

static void drop(struct connection *c) {
    if (c->place >= 0) {
        open_ones[c->place] = open_ones[--open_count];
        open_ones[c->place]->place = c->place;
    }
    close(c->fd);
    free(c);
}

static void say(struct connection *c, const void *data, size_t size) {
    send(c->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* RFC 6455 section 4.2.2: the answer to the key is base64(SHA-1(key + GUID)). */
static void shake_hands(struct connection *c, const char *key) {
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char text[128], answer[256];
    uint8_t digest[EVP_MAX_MD_SIZE], encoded[64];
    int size = snprintf(text, sizeof text, "%.24s%s", key, guid);
    EVP_Digest(text, (size_t)size, digest, NULL, EVP_sha1(), NULL);
    EVP_EncodeBlock(encoded, digest, 20);
    size = snprintf(answer, sizeof answer,
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                    "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                    encoded);
    say(c, answer, (size_t)size);
    if (open_count == open_room) {
        open_room = open_room ? open_room * 2 : 1024;
        open_ones = realloc(open_ones, (size_t)open_room * sizeof *open_ones);
    }
    c->place = open_count;
    open_ones[open_count++] = c;
}

/* The bytes of one request, or 0 if it is incomplete. */
static size_t take_request(struct connection *c, uint8_t *data, size_t size) {
    static const char hello[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                                "Content-Length: 13\r\n\r\nHello, world!";
    uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t whole = (size_t)(end + 4 - data);
    char *key = memmem(data, whole, "Sec-WebSocket-Key: ", 19);
    c->is_echo = memmem(data, whole, "GET /echo", 9) != NULL;
    if (key)
        shake_hands(c, key + 19);
    else
        say(c, hello, sizeof hello - 1);
    return whole;
}

/* The bytes of one masked frame, or 0 if it is incomplete. */
static size_t take_frame(struct connection *c, uint8_t *data, size_t size) {
    uint8_t frame[HELD_BYTES];
    size_t head = 2, out = 2;
    if (size < 6)
        return 0;
    size_t length = data[1] & 0x7f;
    if (length == 126) {
        length = (size_t)data[2] << 8 | data[3];
        head = 4;
    }
    if (size < head + 4 + length)
        return 0;
    const uint8_t *key = data + head, *payload = key + 4;
    frame[0] = 0x81;
    frame[1] = (uint8_t)length;
    if (length > 125) {
        frame[1] = 126;
        frame[2] = (uint8_t)(length >> 8);
        frame[3] = (uint8_t)length;
        out = 4;
    }
    for (size_t i = 0; i < length; i++)
        frame[out + i] = payload[i] ^ key[i & 3];
    if ((data[0] & 0x0f) != 1)
        return head + 4 + length;
    if (c->is_echo)
        say(c, frame, out + length);
    else
        for (int i = 0; i < open_count; i++)
            say(open_ones[i], frame, out + length);
    return head + 4 + length;
}

static void on_readable(struct connection *c) {
    ssize_t got = recv(c->fd, c->data + c->held, sizeof c->data - c->held, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        drop(c);
        return;
    }
    c->held += (size_t)got;
    size_t done = 0, taken;
    do {
        uint8_t *data = c->data + done;
        size_t size = c->held - done;
        taken = c->place < 0 ? take_request(c, data, size) : take_frame(c, data, size);
        done += taken;
    } while (taken && done < c->held);
    memmove(c->data, c->data + done, c->held - done);
    c->held -= done;
}

static void on_connection(int listening) {
    int fd, one = 1;
    while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = malloc(sizeof *c);
        c->fd = fd;
        c->place = -1;
        c->is_echo = false;
        c->held = 0;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int count, char **words) {
    int one = 1, listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(count > 1 ? words[1] : "9000")),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listening, (struct sockaddr *)&address, sizeof address) || listen(listening, BACKLOG)) {
        perror("bind");
        return 1;
    }
    poll_fd = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listening, &event);
    for (;;) {
        struct epoll_event events[MOST_EVENTS];
        int ready = epoll_wait(poll_fd, events, MOST_EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr)
                on_readable(events[i].data.ptr);
            else
                on_connection(listening);
        }
    }
}
