/* A WebSocket and HTTP load client on epoll.  It opens N connections, drives them for some rounds
 * and prints one JSON object per line: what was delivered, how long it took, and how much
 * processor time the server's processes used meanwhile.
 *
 *     load -p PORT -m fanout|echo|http|connect -n CONNECTIONS [-u PATH] [-w WINDOW] [-s BYTES]
 *          [-r ROUNDS] [-d SECONDS] [-i IDLE_SECONDS] [-P SERVER_PID]...
 *
 * Every message carries a number and the time it was sent.  A connection that gets a number twice,
 * out of order or not at all makes the run fail: a benchmark of lost messages says nothing.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_PIDS = 32, MOST_EVENTS = 1024, READ_BYTES = 1 << 18, REST_BYTES = 1 << 16 };
enum { MOST_MESSAGE_BYTES = 1 << 14, CONNECTING_AT_ONCE = 64, SILENCE_SECONDS = 30 };

enum phase { CLOSED, CONNECTING, SHAKING_HANDS, OPEN };
enum mode { FANOUT, ECHO, HTTP, CONNECT };

struct connection {
    int fd;
    enum phase phase;
    uint32_t next_number; /* of the message that should come next */
    uint32_t held;        /* bytes in rest */
    uint8_t *rest;        /* the beginning of something incomplete */
    uint64_t started;
};

/* Options. */
static int port = 8000, connections = 100, window = 1, message_bytes = 100, rounds = 3;
static double round_seconds = 1.0, idle_seconds = 0.5;
static const char *path = "/";
static enum mode mode = FANOUT;
static int pids[MOST_PIDS], pid_count;

/* State. */
static struct connection *all;
static int poll_fd, open_count;
static uint64_t delivered, silence_since;
static bool is_running; /* echo and HTTP clients send again after each answer */

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* ---- latency: a histogram with 64 steps per power of two, so within 1.6 % of the truth ---- */

enum { STEPS = 64, BUCKETS = STEPS * 48 };
static uint64_t histogram[BUCKETS], recorded;

static void record(uint64_t nanoseconds) {
    int bucket = (int)nanoseconds;
    if (nanoseconds >= STEPS) {
        int shift = 63 - __builtin_clzll(nanoseconds) - 6;
        bucket = (shift + 1) * STEPS + (int)((nanoseconds >> shift) - STEPS);
    }
    histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    recorded++;
}

static double percentile_ms(double share) {
    uint64_t wanted = (uint64_t)(share * (double)recorded), seen = 0;
    for (int bucket = 0; bucket < BUCKETS; bucket++) {
        seen += histogram[bucket];
        if (histogram[bucket] && seen >= wanted) {
            if (bucket < STEPS)
                return bucket / 1e6;
            int shift = bucket / STEPS - 1;
            return (double)((uint64_t)(bucket % STEPS + STEPS) << shift) / 1e6;
        }
    }
    return 0;
}

/* ---- the server's processes ---- */

static double server_cpu_seconds(void) {
    double sum = 0;
    for (int i = 0; i < pid_count; i++) {
        clockid_t clock;
        struct timespec time;
        if (clock_getcpuclockid(pids[i], &clock) == 0 && clock_gettime(clock, &time) == 0)
            sum += (double)time.tv_sec + (double)time.tv_nsec / 1e9;
    }
    return sum;
}

static double server_resident_kib(void) {
    double sum = 0;
    for (int i = 0; i < pid_count; i++) {
        char name[64], line[256];
        long kib;
        snprintf(name, sizeof name, "/proc/%d/status", pids[i]);
        FILE *file = fopen(name, "r");
        if (!file)
            continue;
        while (fgets(line, sizeof line, file))
            if (sscanf(line, "VmRSS: %ld", &kib) == 1)
                sum += (double)kib;
        fclose(file);
    }
    return sum;
}

/* ---- sending ---- */

static void send_all(struct connection *c, const void *data, size_t size) {
    const uint8_t *from = data;
    while (size) {
        ssize_t sent = send(c->fd, from, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            usleep(50);
            continue;
        }
        if (sent < 0)
            fail("send: %s", strerror(errno));
        from += sent;
        size -= (size_t)sent;
    }
}

static void send_frame(struct connection *c, int opcode, const uint8_t *payload, size_t size) {
    static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
    uint8_t frame[MOST_MESSAGE_BYTES + 16];
    size_t head = 0;
    frame[head++] = (uint8_t)(0x80 | opcode);
    if (size < 126) {
        frame[head++] = (uint8_t)(0x80 | size);
    } else {
        frame[head++] = 0x80 | 126;
        frame[head++] = (uint8_t)(size >> 8);
        frame[head++] = (uint8_t)size;
    }
    memcpy(frame + head, key, sizeof key);
    head += sizeof key;
    for (size_t i = 0; i < size; i++)
        frame[head + i] = payload[i] ^ key[i & 3];
    send_all(c, frame, head + size);
}

/* {"message": "#<number><time>xxxx"}: numbers in hexadecimal, filled up to message_bytes. */
static void send_message(struct connection *c, uint32_t number) {
    char text[MOST_MESSAGE_BYTES];
    int size = sprintf(text, "{\"message\":\"#%08" PRIx32 "%016" PRIx64, number, now());
    while (size < message_bytes - 2)
        text[size++] = 'x';
    size += sprintf(text + size, "\"}");
    send_frame(c, 1, (uint8_t *)text, (size_t)size);
}

static void send_request(struct connection *c) {
    char text[512];
    c->started = now();
    int size = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: localhost:%d\r\n\r\n", path,
                        port);
    send_all(c, text, (size_t)size);
}

static void send_handshake(struct connection *c) {
    char text[512];
    int size = snprintf(text, sizeof text,
                        "GET %s HTTP/1.1\r\nHost: localhost:%d\r\nOrigin: http://localhost:%d\r\n"
                        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                        path, port, port);
    send_all(c, text, (size_t)size);
}

/* ---- receiving: each taker returns the bytes of one whole thing, or 0 if it is incomplete ---- */

static uint64_t hexadecimal(const uint8_t *digits, int count) {
    uint64_t value = 0;
    for (int i = 0; i < count; i++)
        value = value << 4 | (uint64_t)(digits[i] <= '9' ? digits[i] - '0' : digits[i] - 'a' + 10);
    return value;
}

static void got_message(struct connection *c, const uint8_t *payload, size_t size) {
    const uint8_t *mark = memchr(payload, '#', size);
    if (!mark || mark + 25 > payload + size)
        fail("a message without number: %.*s", (int)(size < 200 ? size : 200), payload);
    uint32_t number = (uint32_t)hexadecimal(mark + 1, 8);
    if (number != c->next_number)
        fail("connection %ld got message %u, expected %u", c - all, number, c->next_number);
    c->next_number++;
    delivered++;
    record(now() - hexadecimal(mark + 9, 16));
    if (mode == ECHO && is_running)
        send_message(c, c->next_number);
}

static size_t take_frame(struct connection *c, const uint8_t *data, size_t size) {
    size_t head = 2, length;
    if (size < 2)
        return 0;
    length = data[1] & 0x7f;
    if (length == 126) {
        if (size < 4)
            return 0;
        length = (size_t)data[2] << 8 | data[3];
        head = 4;
    } else if (length == 127) {
        fail("a message of 64 KiB or more");
    }
    if (size < head + length)
        return 0;
    switch (data[0] & 0x0f) {
    case 1:
    case 2:
        got_message(c, data + head, length);
        break;
    case 8:
        fail("the server closed connection %ld with code %d", c - all,
             length < 2 ? 0 : data[head] << 8 | data[head + 1]);
        break;
    case 9:
        send_frame(c, 10, data + head, length);
        break;
    }
    return head + length;
}

static size_t take_response(struct connection *c, const uint8_t *data, size_t size) {
    const uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end)
        return 0;
    if (size < 12 || memcmp(data + 8, " 200", 4))
        fail("the server answered %.*s", 60, data);
    const char *field = strcasestr((const char *)data, "\r\ncontent-length:");
    if (!field || (const uint8_t *)field > end)
        fail("an answer without Content-Length");
    size_t whole = (size_t)(end + 4 - data) + (size_t)atol(field + 17);
    if (size < whole)
        return 0;
    delivered++;
    record(now() - c->started);
    if (is_running)
        send_request(c);
    return whole;
}

static size_t take_handshake(struct connection *c, const uint8_t *data, size_t size) {
    const uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end)
        return 0;
    if (memcmp(data, "HTTP/1.1 101", 12))
        fail("the server refused the handshake: %.*s", (int)(end - data), data);
    c->phase = OPEN;
    open_count++;
    record(now() - c->started);
    return (size_t)(end + 4 - data);
}

static void take_all(struct connection *c, const uint8_t *data, size_t size) {
    size_t done = 0, taken;
    do {
        if (c->phase == SHAKING_HANDS)
            taken = take_handshake(c, data + done, size - done);
        else if (mode == HTTP)
            taken = take_response(c, data + done, size - done);
        else
            taken = take_frame(c, data + done, size - done);
        done += taken;
    } while (taken && done < size);
    c->held = (uint32_t)(size - done);
    if (c->held) {
        if (c->held > REST_BYTES)
            fail("%u bytes of something incomplete", c->held);
        if (!c->rest)
            c->rest = malloc(REST_BYTES);
        memmove(c->rest, data + done, c->held);
    }
}

static void on_readable(struct connection *c) {
    static uint8_t data[READ_BYTES + 1];
    size_t held = c->held;
    memcpy(data, c->rest, held);
    ssize_t got = recv(c->fd, data + held, READ_BYTES - held, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        fail("connection %ld ended: %s", c - all, got ? strerror(errno) : "closed by the server");
    data[held + (size_t)got] = 0; /* for strcasestr */
    take_all(c, data, held + (size_t)got);
}

static void on_connected(struct connection *c) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error)
        fail("connect: %s", strerror(error));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, c->fd, &event);
    if (mode == HTTP) {
        c->phase = OPEN;
        open_count++;
    } else {
        c->phase = SHAKING_HANDS;
        send_handshake(c);
    }
}

static void turn(int milliseconds) {
    struct epoll_event events[MOST_EVENTS];
    int count = epoll_wait(poll_fd, events, MOST_EVENTS, milliseconds);
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        if (c->phase == CONNECTING)
            on_connected(c);
        else
            on_readable(c);
    }
    if (count > 0)
        silence_since = now();
    else if (now() - silence_since > (uint64_t)SILENCE_SECONDS * 1000000000u)
        fail("no byte for %d s: %" PRIu64 " delivered, %d open", SILENCE_SECONDS, delivered,
             open_count);
}

static void start_connection(struct connection *c) {
    int one = 1;
    struct linger reset = {1, 0}; /* leave no socket in TIME_WAIT for the next run */
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        fail("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    c->phase = CONNECTING;
    c->started = now();
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &event);
}

/* ---- the runs ---- */

struct measure {
    uint64_t began;
    double cpu, client_cpu;
};

static double own_cpu_seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static struct measure begin(void) {
    memset(histogram, 0, sizeof histogram);
    recorded = delivered = 0;
    silence_since = now();
    return (struct measure){now(), server_cpu_seconds(), own_cpu_seconds()};
}

static void report(const char *name, struct measure from, uint64_t count, const char *extra) {
    double wall = (double)(now() - from.began) / 1e9;
    double cpu = server_cpu_seconds() - from.cpu;
    printf("{\"phase\": \"%s\", \"count\": %" PRIu64 ", \"seconds\": %.4f, \"rate\": %.1f, "
           "\"cpu_us\": %.4f, \"client_cpu_us\": %.4f, \"p50_ms\": %.4f, \"p99_ms\": %.4f%s}\n",
           name, count, wall, (double)count / wall, cpu * 1e6 / (double)count,
           (own_cpu_seconds() - from.client_cpu) * 1e6 / (double)count, percentile_ms(0.50),
           percentile_ms(0.99), extra);
    fflush(stdout);
}

static void turn_for(double seconds) {
    uint64_t until = now() + (uint64_t)(seconds * 1e9);
    while (now() < until) {
        turn(10);
        silence_since = now();
    }
}

static void run_connect(void) {
    char extra[128];
    double before = server_resident_kib();
    struct measure from = begin();
    for (int started = 0; open_count < connections;) {
        while (started < connections && started - open_count < CONNECTING_AT_ONCE)
            start_connection(&all[started++]);
        turn(100);
    }
    struct measure connected = from;
    double cpu = server_cpu_seconds();
    uint64_t ended = now();
    turn_for(idle_seconds);
    snprintf(extra, sizeof extra, ", \"kib_each\": %.3f",
             (server_resident_kib() - before) / connections);
    /* The rest after the last handshake is not part of the cost of connecting. */
    connected.began += now() - ended;
    connected.cpu += server_cpu_seconds() - cpu;
    report("connect", connected, (uint64_t)connections, extra);
}

static void run_fanout(double seconds, bool is_warm_up) {
    static uint32_t number;
    uint64_t sent = 0, complete = 0;
    struct measure from = begin();
    uint64_t until = from.began + (uint64_t)(seconds * 1e9);
    do {
        while (sent - complete < (uint64_t)window && (now() < until || !sent)) {
            send_message(&all[0], number++);
            sent++;
        }
        turn(20);
        complete = delivered / (uint64_t)connections;
    } while (complete < sent || now() < until);
    if (delivered != sent * (uint64_t)connections)
        fail("%" PRIu64 " deliveries of %" PRIu64 " messages", delivered, sent);
    if (!is_warm_up)
        report("fanout", from, delivered, "");
}

static void run_round_trips(const char *name) {
    is_running = true;
    for (int i = 0; i < connections; i++)
        mode == HTTP ? send_request(&all[i]) : send_message(&all[i], 0);
    turn_for(round_seconds / 2);
    for (int i = 0; i < rounds; i++) {
        struct measure from = begin();
        turn_for(round_seconds);
        report(name, from, delivered, "");
    }
    is_running = false;
}

static void read_options(int count, char **words) {
    int option;
    while ((option = getopt(count, words, "p:m:n:u:w:s:r:d:i:P:")) != -1) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'n': connections = atoi(optarg); break;
        case 'u': path = optarg; break;
        case 'w': window = atoi(optarg); break;
        case 's': message_bytes = atoi(optarg); break;
        case 'r': rounds = atoi(optarg); break;
        case 'd': round_seconds = atof(optarg); break;
        case 'i': idle_seconds = atof(optarg); break;
        case 'P':
            if (pid_count < MOST_PIDS)
                pids[pid_count++] = atoi(optarg);
            break;
        case 'm':
            mode = !strcmp(optarg, "fanout") ? FANOUT
                   : !strcmp(optarg, "echo") ? ECHO
                   : !strcmp(optarg, "http") ? HTTP
                                             : CONNECT;
            break;
        default: exit(2);
        }
    }
    if (message_bytes < 40 || message_bytes > MOST_MESSAGE_BYTES - 64)
        fail("a message has 40 to %d bytes", MOST_MESSAGE_BYTES - 64);
}

int main(int count, char **words) {
    read_options(count, words);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    poll_fd = epoll_create1(0);
    all = calloc((size_t)connections, sizeof *all);
    run_connect();
    if (mode == FANOUT) {
        run_fanout(round_seconds / 2, true);
        for (int i = 0; i < rounds; i++)
            run_fanout(round_seconds, false);
    } else if (mode != CONNECT) {
        run_round_trips(mode == HTTP ? "http" : "echo");
    }
    return 0;
}
