/* Load generator and server of the benchmarks: one thread, epoll, no allocation while it measures.
 *
 *   load serve HTTP_PORT BULK_PORT        answer small requests, or send without end
 *   load rr   HOST PORT CONNS SECONDS     requests on CONNS connections that stay open
 *   load crr  HOST PORT CONNS SECONDS     a new connection per request, CONNS at a time, the client closes
 *   load bulk HOST PORT CONNS SECONDS     read what BULK_PORT sends
 *   load ...  HOST PORT CONNS -           rr or crr in slices: for every line "WARM MEASURED" (seconds) on standard
 *                                         input; MEASURED 0: until the next line, whatever that says
 *
 * The clients print one JSON object, one per slice. `count` and `seconds` are of the time measured; `all` counts the
 * warm-up and what came after, too. Times are of what was asked while measuring, also when it was answered after that,
 * and of what waited all through it; what has then no answer within a second is a sample all the same, of the time that
 * it has waited so far, and is counted as `late`. Between slices connections stay open and nothing is asked or dialled;
 * an object with "up" says when they are open. Requests and answers are HTTP/1.1. Whatever a proxy adds to an answer's head, one with status 200 and a whole body
 * counts, and anything else is an error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
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
#define HEAD 2048
#define WARM_NS 200000000ull
#define OPEN_NS 2000000000ull
#ifndef STUCK_NS
#define STUCK_NS 5000000000ull
#define SETTLE_NS 1000000000ull
#endif

enum kind { FREE, LISTEN_HTTP, LISTEN_BULK, HTTP, BULK, CLIENT };

static struct conn {
    enum kind kind;
    unsigned matched;
    uint64_t since;
    int connecting;
    int busy;
    int sampled; /* what it waits for is a sample of this slice */
} conns[MAX_FD];

/* What was heard of an answer: its head, until that is whole, then how much of its body is to come. */
static struct answer {
    int in_body;
    unsigned size;
    long left;
    char head[HEAD + 1];
} answers[MAX_FD];

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
static int measuring;

static int dial(void) {
    int fd = socket(target.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || fd >= MAX_FD) die("socket");
    nodelay(fd);
    conns[fd] = (struct conn){.kind = CLIENT, .since = now(), .connecting = 1, .sampled = measuring};
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
    answers[fd].in_body = answers[fd].size = 0;
    return send(fd, REQUEST, REQUEST_SIZE, MSG_NOSIGNAL) == (ssize_t)REQUEST_SIZE;
}

/* More of an answer: 1 when it is whole, 0 while it is not, -1 when it is none that was asked for. */
static int heard(struct answer *a, const char *data, long size) {
    if (!a->in_body) {
        long before = a->size, part = size < HEAD - before ? size : HEAD - before;
        memcpy(a->head + before, data, (size_t)part);
        a->size += (unsigned)part;
        a->head[a->size] = 0;
        const char *end = strstr(a->head, "\r\n\r\n"), *length = strcasestr(a->head, "\r\ncontent-length:");
        if (!end) return a->size == HEAD ? -1 : 0;
        if (strncmp(a->head, "HTTP/1.1 200 ", 13) || !length || length > end) return -1;
        a->in_body = 1;
        a->left = atol(length + sizeof "\r\ncontent-length:" - 1);
        size -= end + 4 - a->head - before;
    }
    a->left -= size;
    return a->left < 0 ? -1 : !a->left;
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static int fresh, bulk, wanted, open_now, up, highest;
static int going;     /* is anything asked and dialled anew? */
static int busy;      /* connections that wait for their answer, or to be open and then for it */
static int told;      /* a line came in a slice that goes on until then */
static size_t kept;   /* samples */
static uint64_t all, count, late, bytes, looked;

static double us(size_t at) { return kept ? samples[at] / 1e3 : 0; }

static void keep(int fd, uint64_t t) {
    uint64_t ns = t - conns[fd].since;
    if (conns[fd].sampled && kept < SAMPLES) samples[kept++] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
    conns[fd].sampled = 0;
}

static void set_busy(int fd, int is) {
    busy += is - conns[fd].busy;
    conns[fd].busy = is;
}

static void dial_one(void) {
    int fd = dial();
    if (fd < 0) return;
    open_now++;
    set_busy(fd, 1);
    if (fd > highest) highest = fd;
}

static void lose(int fd) {
    set_busy(fd, 0);
    drop(fd);
    open_now--;
    if (fresh && going) dial_one();
}

static void fail(int fd) { errors++; lose(fd); }

static void ask_next(int fd, uint64_t t) {
    conns[fd].since = t;
    conns[fd].sampled = measuring;
    set_busy(fd, 1);
    if (!ask(fd)) fail(fd);
}

static void connected(int fd) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) { fail(fd); return; }
    conns[fd].connecting = 0;
    up++;
    watch(fd, EPOLLIN, EPOLL_CTL_MOD);
    if (!fresh) set_busy(fd, 0);
    else if (!ask(fd)) fail(fd);
}

static void read_bulk(int fd, uint64_t t) {
    ssize_t got = recv(fd, buffer, BUFFER, 0);
    if (got > 0) { conns[fd].since = t; all += (uint64_t)got; if (measuring) bytes += (uint64_t)got; }
    else if (!got || errno != EAGAIN) fail(fd);
}

static void read_answer(int fd) {
    ssize_t got = recv(fd, buffer, 4096, 0);
    int whole = got > 0 ? heard(&answers[fd], buffer, got) : 0;
    if (whole < 0 || !got || (got < 0 && errno != EAGAIN)) { fail(fd); return; }
    if (!whole) return;
    uint64_t end = now();
    all++;
    count += (uint64_t)measuring;
    keep(fd, end);
    if (fresh) lose(fd);
    else if (going) ask_next(fd, end);
    else set_busy(fd, 0);
}

static void give_up_stuck(uint64_t t) {
    if (t - looked < STUCK_NS / 5) return;
    looked = t;
    for (int fd = 0; fd <= highest; fd++)
        if (conns[fd].kind == CLIENT && (conns[fd].busy || (bulk && going)) && t > conns[fd].since + STUCK_NS) fail(fd);
}

/* Handle what is next to happen, if it does before `until`; the time after waiting for it. */
static uint64_t turn(uint64_t until) {
    struct epoll_event events[256];
    uint64_t t = now(), left = until > t ? (until - t) / 1000000 + 1 : 0;
    int n = epoll_wait(poller, events, 256, left < 100 ? (int)left : 100);
    t = now();
    for (int i = 0; i < n; i++) {
        int fd = events[i].data.fd;
        if (fd == STDIN_FILENO) told = 1;
        if (conns[fd].kind != CLIENT) continue;
        if (conns[fd].connecting) connected(fd);
        else if (bulk) read_bulk(fd, t);
        else read_answer(fd);
    }
    give_up_stuck(t);
    return t;
}

static void open_all(void) {
    uint64_t latest = now() + OPEN_NS;
    looked = latest - OPEN_NS;
    for (int i = 0; i < wanted; i++) dial_one();
    while (busy && now() < latest) turn(latest);
}

/* Who waits for an answer since before goes on waiting: since then. */
static void go_on(uint64_t t) {
    going = 1;
    looked = t;
    for (int fd = 0; fd <= highest; fd++)
        if (conns[fd].kind == CLIENT && !conns[fd].busy) {
            if (bulk) conns[fd].since = t;
            else ask_next(fd, t);
        }
    for (int missing = fresh ? wanted - open_now : 0; missing > 0; missing--) dial_one();
}

/* What is asked and dialled from now on until `until`, or until a line comes, is a sample; when it was over. */
static uint64_t measure(uint64_t t, uint64_t until) {
    char line[128];
    measuring = 1;
    told = 0;
    if (!until) watch(STDIN_FILENO, EPOLLIN, EPOLL_CTL_ADD);
    while (open_now && (until ? t < until : !told)) t = turn(until ? until : t + OPEN_NS);
    measuring = 0;
    if (until) return t < until ? until : t; /* nothing is open any more: that takes its time, too */
    watch(STDIN_FILENO, EPOLLIN, EPOLL_CTL_DEL);
    if (!fgets(line, sizeof line, stdin)) exit(0);
    return now();
}

/* Nothing new begins; what is under way ends, or is late. */
static void settle(uint64_t t) {
    uint64_t latest = t + SETTLE_NS;
    going = 0;
    for (int fd = 0; fd <= highest; fd++)
        if (conns[fd].kind == CLIENT && conns[fd].busy) conns[fd].sampled = 1;
    while (busy && t < latest) t = turn(latest);
    for (int fd = 0; busy && fd <= highest; fd++)
        if (conns[fd].kind == CLIENT && conns[fd].busy && conns[fd].sampled) { late++; keep(fd, t); }
}

static void slice(uint64_t warm, uint64_t measured) {
    uint64_t t = now(), from = t + warm;
    count = all = bytes = late = kept = 0;
    go_on(t);
    while (t < from && open_now) t = turn(from);
    from = t;
    t = measure(from, measured ? from + measured : 0);
    settle(t);
    qsort(samples, kept, sizeof *samples, ascending);
    printf("{\"count\": %lu, \"all\": %lu, \"bytes\": %lu, \"errors\": %lu, \"late\": %lu, \"seconds\": %.6f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f}\n",
           (unsigned long)count, (unsigned long)all, (unsigned long)bytes, errors, (unsigned long)late,
           (double)(t - from) / 1e9, us(kept / 2), us(kept * 99 / 100), us(kept - 1));
    fflush(stdout);
    errors = 0;
}

static int client(const char *seconds) {
    double warm, measured;
    char line[128];
    if (!(samples = malloc(SAMPLES * sizeof *samples))) die("malloc");
    if (!fresh) open_all();
    if (strcmp(seconds, "-")) {
        slice(WARM_NS, (uint64_t)(atof(seconds) * 1e9));
        return 0;
    }
    setvbuf(stdin, NULL, _IONBF, 0); /* what comes next is to be seen by epoll */
    printf("{\"up\": %d}\n", up);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%lf %lf", &warm, &measured) != 2) { fprintf(stderr, "not a slice: %s", line); return 2; }
        slice((uint64_t)(warm * 1e9), (uint64_t)(measured * 1e9));
    }
    return 0;
}

int main(int argc, char **argv) {
    struct rlimit files = {MAX_FD, MAX_FD};
    signal(SIGPIPE, SIG_IGN);
    setrlimit(RLIMIT_NOFILE, &files);
    if ((poller = epoll_create1(0)) < 0) die("epoll_create1");
    if (argc == 4 && !strcmp(argv[1], "serve")) serve(atoi(argv[2]), atoi(argv[3]));
    if (argc != 6) { fprintf(stderr, "usage: see the head of load.c\n"); return 2; }
    struct addrinfo *found, numeric = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    if (getaddrinfo(argv[2], argv[3], &numeric, &found)) { fprintf(stderr, "not an address: %s\n", argv[2]); return 2; }
    memcpy(&target, found->ai_addr, target_size = found->ai_addrlen);
    freeaddrinfo(found);
    fresh = !strcmp(argv[1], "crr");
    bulk = !strcmp(argv[1], "bulk");
    wanted = atoi(argv[4]);
    if (bulk && !strcmp(argv[5], "-")) { fprintf(stderr, "bulk in slices leaves its buffers to others\n"); return 2; }
    return client(argv[5]);
}
