/* Load generator and server of the benchmarks: one thread, epoll, no allocation while it measures.
 *
 *   load serve HTTP_PORT BULK_PORT        answer small requests, or send without end
 *   load rr   HOST PORT CONNS SECONDS     requests on CONNS connections that stay open
 *   load crr  HOST PORT CONNS SECONDS     a new connection per request, CONNS at a time, the client closes
 *   load bulk HOST PORT CONNS SECONDS     read what BULK_PORT sends
 *
 * The clients print one JSON object. `count` and `seconds` are of the time measured; `all` counts the warm-up too.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 65536
#define BUFFER (256 * 1024)
#define SAMPLES (8u << 20)
#define WARM_NS 200000000ull
#define STUCK_NS 5000000000ull

enum kind { FREE, LISTEN_HTTP, LISTEN_BULK, HTTP, BULK, CLIENT };

static struct conn {
    enum kind kind;
    unsigned matched, got;
    uint64_t since;
    int connecting;
} conns[MAX_FD];

static char buffer[BUFFER];
static uint32_t *samples;
static int poller;
static const char REQUEST[] = "GET / HTTP/1.1\r\nHost: server\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n";
static const char RESPONSE[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n\r\n"
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
#define REQUEST_SIZE (sizeof REQUEST - 1)
#define RESPONSE_SIZE (sizeof RESPONSE - 1)

static void die(const char *what) { perror(what); exit(1); }

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void watch(int fd, uint32_t events, int operation) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(poller, operation, fd, &event)) die("epoll_ctl");
}

static void nodelay(int fd) { int on = 1; setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); }

static void drop(int fd) { conns[fd].kind = FREE; close(fd); }

/* --- server */

static void listen_on(int port, enum kind kind) {
    int on = 1, off = 0, fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 4096)) die("listen");
    conns[fd].kind = kind;
    watch(fd, EPOLLIN, EPOLL_CTL_ADD);
}

static void answer(int fd) {
    for (;;) {
        ssize_t n = recv(fd, buffer, 4096, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) { drop(fd); return; }
        for (ssize_t i = 0; i < n; i++) {
            unsigned m = conns[fd].matched;
            conns[fd].matched = buffer[i] == "\r\n\r\n"[m] ? m + 1 : buffer[i] == '\r';
            if (conns[fd].matched == 4) {
                conns[fd].matched = 0;
                if (send(fd, RESPONSE, RESPONSE_SIZE, MSG_NOSIGNAL) != (ssize_t)RESPONSE_SIZE) { drop(fd); return; }
            }
        }
        if (n < 4096) return;
    }
}

static void stream(int fd) {
    for (int i = 0; i < 4; i++) {
        ssize_t n = send(fd, buffer, BUFFER, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) { drop(fd); return; }
    }
}

static void serve(int http_port, int bulk_port) {
    struct epoll_event events[256];
    listen_on(http_port, LISTEN_HTTP);
    listen_on(bulk_port, LISTEN_BULK);
    for (;;) {
        int n = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd, taken;
            switch (conns[fd].kind) {
            case LISTEN_HTTP: case LISTEN_BULK:
                while ((taken = accept4(fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    if (taken >= MAX_FD) { close(taken); continue; }
                    nodelay(taken);
                    memset(&conns[taken], 0, sizeof conns[taken]);
                    conns[taken].kind = conns[fd].kind == LISTEN_HTTP ? HTTP : BULK;
                    watch(taken, conns[fd].kind == LISTEN_HTTP ? EPOLLIN : EPOLLOUT, EPOLL_CTL_ADD);
                }
                break;
            case HTTP: answer(fd); break;
            case BULK: stream(fd); break;
            default: break;
            }
        }
    }
}

/* --- clients */

static struct sockaddr_storage target;
static socklen_t target_size;
static unsigned long errors;

static int dial(void) {
    int fd = socket(target.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || fd >= MAX_FD) die("socket");
    nodelay(fd);
    conns[fd] = (struct conn){.kind = CLIENT, .since = now(), .connecting = 1};
    if (connect(fd, (struct sockaddr *)&target, target_size) && errno != EINPROGRESS) {
        errors++;
        close(fd);
        conns[fd].kind = FREE;
        return -1;
    }
    watch(fd, EPOLLOUT, EPOLL_CTL_ADD);
    return fd;
}

static int ask(int fd) {
    conns[fd].got = 0;
    return send(fd, REQUEST, REQUEST_SIZE, MSG_NOSIGNAL) == (ssize_t)REQUEST_SIZE;
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static int client(const char *mode, int wanted, double seconds) {
    int fresh = !strcmp(mode, "crr"), bulk = !strcmp(mode, "bulk"), open_now = 0, up = 0, highest = 0;
    uint64_t begun = now(), from = 0, until = 0, all = 0, count = 0, bytes = 0, looked = begun;
    struct epoll_event events[256];
    samples = malloc(SAMPLES * sizeof *samples);
    if (!samples) die("malloc");
    for (int i = 0; i < wanted; i++) {
        int fd = dial();
        if (fd >= 0) { open_now++; if (fd > highest) highest = fd; }
    }
    for (;;) {
        int n = epoll_wait(poller, events, 256, 100);
        uint64_t t = now();
        if (!from && (fresh || up == wanted || t - begun > 2000000000ull)) {
            from = t + WARM_NS;
            until = from + (uint64_t)(seconds * 1e9);
        }
        if (from && t >= until) break;
        int measuring = from && t >= from;
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd, bad = 0, done = 0;
            struct conn *c = &conns[fd];
            if (c->kind != CLIENT) continue;
            if (c->connecting) {
                int error = 0;
                socklen_t size = sizeof error;
                getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
                if (error) bad = 1;
                else {
                    c->connecting = 0;
                    up++;
                    watch(fd, EPOLLIN, EPOLL_CTL_MOD);
                    if (!fresh) c->since = now();
                    if (!bulk && !ask(fd)) bad = 1;
                }
            } else if (bulk) {
                ssize_t got = recv(fd, buffer, BUFFER, 0);
                if (got > 0) { c->since = t; all += (uint64_t)got; if (measuring) bytes += (uint64_t)got; }
                else if (!got || errno != EAGAIN) bad = 1;
            } else {
                ssize_t got = recv(fd, buffer, 4096, 0);
                if (got > 0) c->got += (unsigned)got;
                else if (!got || errno != EAGAIN) bad = 1;
                if (c->got > RESPONSE_SIZE) bad = 1;
                done = c->got == RESPONSE_SIZE;
            }
            if (done && !bad) {
                uint64_t end = now();
                all++;
                if (measuring) { if (count < SAMPLES) samples[count] = (uint32_t)((end - c->since) / 1000); count++; }
                if (!fresh) { c->since = end; if (!ask(fd)) bad = 1; }
            }
            if (bad) errors++;
            if (bad || (done && fresh)) {
                drop(fd);
                open_now--;
                if (fresh && (fd = dial()) >= 0) { open_now++; if (fd > highest) highest = fd; }
            }
        }
        if (t - looked > 1000000000ull) {
            looked = t;
            for (int fd = 0; fd <= highest; fd++)
                if (conns[fd].kind == CLIENT && t > conns[fd].since + STUCK_NS) {
                    errors++;
                    drop(fd);
                    open_now--;
                    if (fresh && dial() >= 0) open_now++;
                }
        }
        if (!open_now && t - begun > 3000000000ull) break;
    }
    uint64_t end = now();
    double took = from && end > from ? (double)(end - from) / 1e9 : 0;
    size_t kept = count < SAMPLES ? count : SAMPLES;
    qsort(samples, kept, sizeof *samples, ascending);
    printf("{\"count\": %lu, \"all\": %lu, \"bytes\": %lu, \"errors\": %lu, \"seconds\": %.6f, "
           "\"p50_us\": %u, \"p99_us\": %u, \"max_us\": %u}\n",
           (unsigned long)count, (unsigned long)all, (unsigned long)bytes, errors, took,
           kept ? samples[kept / 2] : 0, kept ? samples[kept * 99 / 100] : 0, kept ? samples[kept - 1] : 0);
    return 0;
}

int main(int argc, char **argv) {
    struct rlimit files = {MAX_FD, MAX_FD};
    signal(SIGPIPE, SIG_IGN);
    setrlimit(RLIMIT_NOFILE, &files);
    if ((poller = epoll_create1(0)) < 0) die("epoll_create1");
    if (argc == 4 && !strcmp(argv[1], "serve")) serve(atoi(argv[2]), atoi(argv[3]));
    if (argc != 6) { fprintf(stderr, "usage: see the head of load.c\n"); return 2; }
    struct sockaddr_in *four = (struct sockaddr_in *)&target;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&target;
    if (inet_pton(AF_INET, argv[2], &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)atoi(argv[3]));
        target_size = sizeof *four;
    } else if (inet_pton(AF_INET6, argv[2], &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)atoi(argv[3]));
        target_size = sizeof *six;
    } else { fprintf(stderr, "not an address: %s\n", argv[2]); return 2; }
    return client(argv[1], atoi(argv[4]), atof(argv[5]));
}
