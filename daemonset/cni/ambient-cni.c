/* ambient-cni: the last plugin of a node's CNI chain. It asks the node agent whether the pod may start now, and hands
 * the result of the plugins before it on unchanged. It decides nothing about the mesh: the agent does, over a unix
 * socket. Without an agent only pods of the namespaces in "passNamespaces" start; the others are refused with a
 * message, and the kubelet tries again.
 *
 * CNI specification 0.3.0 to 1.1.0, chained only. No dependency but libc, no allocation but one buffer for standard
 * input, every length checked. Configuration, under the key "ambient" of the plugin's entry:
 *   {"socket": "/var/run/ambient/cni.sock", "passNamespaces": ["kube-system"], "timeoutSeconds": 30}
 *
 * To the agent: "AMBCNI1\n", then six fields, each a length (4 octets, network order) and its octets: CNI_COMMAND,
 * CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_ARGS, standard input. From the agent: a CNI error code (4 octets, 0 is
 * "go on"), a length (4 octets), a message. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_INPUT (4u << 20)
#define MAX_VARIABLE 65536u
#define MAX_MESSAGE 4096u
#define MAX_DEPTH 64
#define MAX_TIMEOUT_S 600
#define DEFAULT_TIMEOUT_S 30
#define DELETE_TIMEOUT_S 5
#define MAGIC "AMBCNI1\n"

/* Error codes of the CNI specification. */
enum {
	INCOMPATIBLE_VERSION = 1,
	INVALID_ENVIRONMENT = 4,
	IO_FAILURE = 5,
	UNREADABLE = 6,
	INVALID_CONFIGURATION = 7,
	TRY_AGAIN_LATER = 11,
};

struct text { /* a part of the input; at is NULL when it is absent */
	const char *at;
	size_t length;
};

struct configuration {
	struct text version;        /* without quotes */
	struct text result;         /* prevResult as it stands */
	struct text socket;         /* without quotes */
	struct text namespaces;     /* passNamespaces as it stands, an array of strings */
	struct text timeout;        /* digits */
	struct text ambient;        /* the object with the three above */
};

static const char *const VERSIONS[] = {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};
static char input[MAX_INPUT + 1];
static char said_version[16] = "1.0.0";

/* --- answers */

static void print_json_text(const char *text, size_t length)
{
	putchar('"');
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else
			putchar(c < 0x20 || c > 0x7e ? ' ' : c);
	}
	putchar('"');
}

static int fail(int code, const char *message, size_t length)
{
	printf("{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":", said_version, code);
	print_json_text(message, length);
	printf("}\n");
	return fflush(stdout) == 0 ? 1 : 2;
}

static int fail_text(int code, const char *message)
{
	return fail(code, message, strlen(message));
}

/* --- JSON: checked whole (RFC 8259 but for the inside of \u escapes and UTF-8), nothing copied */

struct reader {
	const char *at, *end;
};

static void skip_space(struct reader *r)
{
	while (r->at < r->end && strchr(" \t\r\n", *r->at) && *r->at)
		r->at++;
}

static int take(struct reader *r, char c)
{
	skip_space(r);
	if (r->at >= r->end || *r->at != c)
		return 0;
	r->at++;
	return 1;
}

/* The inside of a string; -1 when there is none. `plain` is cleared when it has escapes. */
static int read_string(struct reader *r, struct text *inside, int *plain)
{
	if (!take(r, '"'))
		return -1;
	inside->at = r->at;
	*plain = 1;
	while (r->at < r->end && *r->at != '"') {
		if ((unsigned char)*r->at < 0x20)
			return -1;
		if (*r->at == '\\') {
			*plain = 0;
			r->at++;
			if (r->at >= r->end || !strchr("\"\\/bfnrtu", *r->at) || !*r->at)
				return -1;
		}
		r->at++;
	}
	if (r->at >= r->end)
		return -1;
	inside->length = (size_t)(r->at - inside->at);
	r->at++;
	return 0;
}

static int read_digits(struct reader *r)
{
	const char *start = r->at;

	while (r->at < r->end && *r->at >= '0' && *r->at <= '9')
		r->at++;
	return r->at > start ? 0 : -1;
}

static int read_number(struct reader *r)
{
	if (r->at < r->end && *r->at == '-')
		r->at++;
	if (r->at + 1 < r->end && r->at[0] == '0' && r->at[1] >= '0' && r->at[1] <= '9')
		return -1;
	if (read_digits(r))
		return -1;
	if (r->at < r->end && *r->at == '.') {
		r->at++;
		if (read_digits(r))
			return -1;
	}
	if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
		r->at++;
		if (r->at < r->end && (*r->at == '+' || *r->at == '-'))
			r->at++;
		if (read_digits(r))
			return -1;
	}
	return 0;
}

static int read_word(struct reader *r, const char *word)
{
	size_t length = strlen(word);

	if ((size_t)(r->end - r->at) < length || memcmp(r->at, word, length))
		return -1;
	r->at += length;
	return 0;
}

static int read_value(struct reader *r, int depth);

static int read_members(struct reader *r, int depth, char last, int named)
{
	struct text name;
	int plain;

	r->at++;
	if (take(r, last))
		return 0;
	do {
		if (named && (read_string(r, &name, &plain) || !take(r, ':')))
			return -1;
		if (read_value(r, depth + 1))
			return -1;
	} while (take(r, ','));
	return take(r, last) ? 0 : -1;
}

static int read_value(struct reader *r, int depth)
{
	struct text ignored;
	int plain;

	skip_space(r);
	if (r->at >= r->end || depth > MAX_DEPTH)
		return -1;
	switch (*r->at) {
	case '{':
		return read_members(r, depth, '}', 1);
	case '[':
		return read_members(r, depth, ']', 0);
	case '"':
		return read_string(r, &ignored, &plain);
	case 't':
		return read_word(r, "true");
	case 'f':
		return read_word(r, "false");
	case 'n':
		return read_word(r, "null");
	default:
		return read_number(r);
	}
}

struct wanted {
	const char *name;
	char first; /* of the value: '{', '[', '"' or '0' for a number without sign */
	struct text *value;
};

/* Reads an object (already known to be valid JSON) for the wanted members. Gives the name of the one that is there
 * twice or is of another kind, or NULL. Quotes of a string are left out. */
static const char *find(struct text object, const struct wanted *wanted, size_t count)
{
	struct reader r = {object.at + 1, object.at + object.length};
	struct text name, value;
	int plain;

	if (take(&r, '}'))
		return NULL;
	do {
		if (read_string(&r, &name, &plain) || !take(&r, ':'))
			return "(object)";
		skip_space(&r);
		value.at = r.at;
		if (read_value(&r, 1))
			return "(object)";
		value.length = (size_t)(r.at - value.at);
		for (size_t i = 0; plain && i < count; i++) {
			const struct wanted *w = &wanted[i];
			char first = *value.at >= '0' && *value.at <= '9' ? '0' : *value.at;

			if (strlen(w->name) != name.length || memcmp(w->name, name.at, name.length))
				continue;
			if (w->value->at || first != w->first)
				return w->name;
			if (first == '"') {
				value.at++;
				value.length -= 2;
				if (memchr(value.at, '\\', value.length))
					return w->name;
			}
			*w->value = value;
		}
	} while (take(&r, ','));
	return NULL;
}

static const char *read_configuration(size_t length, struct configuration *c)
{
	struct reader r = {input, input + length};
	struct text top;
	const struct wanted outer[] = {
		{"cniVersion", '"', &c->version},
		{"prevResult", '{', &c->result},
		{"ambient", '{', &c->ambient},
	};
	const struct wanted inner[] = {
		{"socket", '"', &c->socket},
		{"passNamespaces", '[', &c->namespaces},
		{"timeoutSeconds", '0', &c->timeout},
	};
	const char *bad;

	skip_space(&r);
	top.at = r.at;
	if (r.at >= r.end || *r.at != '{' || read_value(&r, 0))
		return "(not JSON)";
	top.length = (size_t)(r.at - top.at);
	skip_space(&r);
	if (r.at != r.end)
		return "(more than one JSON value)";
	bad = find(top, outer, 3);
	return bad || !c->ambient.at ? bad : find(c->ambient, inner, 3);
}

/* Whether the array of strings holds this one. */
static int lists(struct text array, struct text wanted)
{
	struct reader r = {array.at + 1, array.at + array.length};
	struct text entry;
	int plain;

	if (!array.at || !wanted.at || !wanted.length)
		return 0;
	while (!read_string(&r, &entry, &plain)) {
		if (plain && entry.length == wanted.length && !memcmp(entry.at, wanted.at, wanted.length))
			return 1;
		if (!take(&r, ','))
			break;
	}
	return 0;
}

/* The value of NAME in "A=1;NAME=value;...". `times` says how often it is there. */
static struct text argument(const char *arguments, const char *name, int *times)
{
	struct text found = {NULL, 0};
	size_t length = strlen(name);

	*times = 0;
	while (*arguments) {
		size_t size = strcspn(arguments, ";");

		if (size > length && !strncmp(arguments, name, length) && arguments[length] == '=') {
			found.at = arguments + length + 1;
			found.length = size - length - 1;
			(*times)++;
		}
		arguments += size;
		arguments += *arguments == ';';
	}
	return found;
}

/* --- the agent */

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000L + t.tv_nsec / 1000000L;
}

/* Waits for the socket; 0 when it is ready, else an errno. */
static int ready(int fd, short events, long deadline)
{
	struct pollfd p = {fd, events, 0};
	long left;

	for (;;) {
		left = deadline - now_ms();
		if (left <= 0)
			return ETIMEDOUT;
		if (poll(&p, 1, (int)left) > 0)
			return 0;
		if (errno != EINTR && errno != 0)
			return errno;
	}
}

static int transfer(int fd, char *data, size_t length, int out, long deadline)
{
	while (length) {
		ssize_t n = out ? send(fd, data, length, MSG_NOSIGNAL) : recv(fd, data, length, 0);
		int error;

		if (n > 0) {
			data += n;
			length -= (size_t)n;
			continue;
		}
		if (n == 0)
			return ECONNRESET;
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN && errno != EWOULDBLOCK)
			return errno;
		errno = 0;
		error = ready(fd, out ? POLLOUT : POLLIN, deadline);
		if (error)
			return error;
	}
	return 0;
}

static int send_field(int fd, const char *data, size_t length, long deadline)
{
	uint32_t size = (uint32_t)length;
	char header[4] = {(char)(size >> 24), (char)(size >> 16), (char)(size >> 8), (char)size};
	int error = transfer(fd, header, 4, 1, deadline);

	return error ? error : transfer(fd, (char *)(uintptr_t)data, length, 1, deadline);
}

static uint32_t number(const char *octets)
{
	const unsigned char *o = (const unsigned char *)octets;

	return (uint32_t)o[0] << 24 | (uint32_t)o[1] << 16 | (uint32_t)o[2] << 8 | o[3];
}

/* Asks the agent. 0 and its answer, or an errno. */
static int ask(const char *path, const struct text fields[6], long deadline, uint32_t *code, char *message,
	       uint32_t *length)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char magic[] = MAGIC, header[8];
	int fd, error;

	strcpy(address.sun_path, path); /* its length was checked */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return errno;
	while (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
		struct timespec pause = {0, 20000000};

		error = errno;
		if (error != EAGAIN && error != EINTR) { /* EAGAIN: its queue is full */
			close(fd);
			return error;
		}
		if (now_ms() >= deadline) {
			close(fd);
			return ETIMEDOUT;
		}
		nanosleep(&pause, NULL);
	}
	error = transfer(fd, magic, sizeof magic - 1, 1, deadline);
	for (int i = 0; !error && i < 6; i++)
		error = send_field(fd, fields[i].at, fields[i].length, deadline);
	if (!error)
		error = transfer(fd, header, sizeof header, 0, deadline);
	if (!error) {
		*code = number(header);
		*length = number(header + 4);
		error = *length > MAX_MESSAGE || *code > 9999 ? EPROTO : transfer(fd, message, *length, 0, deadline);
	}
	close(fd);
	return error;
}

/* --- commands */

static int known_version(struct text version)
{
	for (size_t i = 0; i < sizeof VERSIONS / sizeof *VERSIONS; i++)
		if (version.length == strlen(VERSIONS[i]) && !memcmp(version.at, VERSIONS[i], version.length))
			return 1;
	return 0;
}

static int tell_versions(void)
{
	printf("{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[");
	for (size_t i = 0; i < sizeof VERSIONS / sizeof *VERSIONS; i++)
		printf("%s\"%s\"", i ? "," : "", VERSIONS[i]);
	printf("]}\n");
	return fflush(stdout) == 0 ? 0 : 2;
}

static int hand_on(const struct configuration *c, int adding)
{
	if (adding) {
		fwrite(c->result.at, 1, c->result.length, stdout);
		putchar('\n');
	}
	return fflush(stdout) == 0 ? 0 : 2;
}

static int without_agent(const struct configuration *c, const char *arguments, const char *path, int error)
{
	char message[MAX_MESSAGE];
	int times, n;
	struct text namespace = argument(arguments, "K8S_POD_NAMESPACE", &times);

	if (!times || (times == 1 && lists(c->namespaces, namespace)))
		return 0; /* no pod of Kubernetes, or one that is never in the mesh */
	n = snprintf(message, sizeof message,
		     "the ambient node agent does not answer on %s (%s): pod of namespace %.*s is held back so that it "
		     "does not start outside the mesh, and will be tried again; look at the agent's pod on this node "
		     "(daemonset ambient-agent)",
		     path, strerror(error), namespace.length < 64 ? (int)namespace.length : 64, namespace.at);
	return fail(TRY_AGAIN_LATER, message, n > 0 && (size_t)n < sizeof message ? (size_t)n : strlen(message));
}

static const char *environment(const char *name)
{
	const char *value = getenv(name);

	return value ? value : "";
}

static int consult(const struct configuration *c, const char *command, size_t length)
{
	int adding = !strcmp(command, "ADD"), deleting = !strcmp(command, "DEL");
	const char *names[] = {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"};
	struct text fields[6] = {{command, strlen(command)}};
	char path[sizeof((struct sockaddr_un *)0)->sun_path] = "", message[MAX_MESSAGE];
	long timeout_s = DEFAULT_TIMEOUT_S;
	uint32_t code = 0, size = 0;
	int error;

	for (int i = 0; i < 4; i++) {
		const char *value = environment(names[i]);

		fields[i + 1] = (struct text){value, strlen(value)};
		if (fields[i + 1].length > MAX_VARIABLE)
			return fail_text(INVALID_ENVIRONMENT, "an environment variable of CNI is too long");
		if (!*value && (i == 0 || i == 2 || (i == 1 && !deleting)))
			return fail_text(INVALID_ENVIRONMENT, "CNI_CONTAINERID, CNI_NETNS and CNI_IFNAME are needed");
	}
	fields[5] = (struct text){input, length};
	if (!c->socket.at || !c->socket.length || c->socket.length >= sizeof path || *c->socket.at != '/')
		return fail_text(INVALID_CONFIGURATION, "ambient.socket has to be the agent's socket, an absolute path");
	memcpy(path, c->socket.at, c->socket.length);
	if (!deleting && !c->result.at)
		return fail_text(INVALID_CONFIGURATION,
				 "prevResult is missing: ambient-cni only works behind another plugin in a conflist");
	if (c->timeout.at) {
		timeout_s = c->timeout.length < 5 ? strtol(c->timeout.at, NULL, 10) : 0;
		if (timeout_s < 1 || timeout_s > MAX_TIMEOUT_S)
			return fail_text(INVALID_CONFIGURATION, "ambient.timeoutSeconds has to be from 1 to 600");
	}
	if (deleting)
		timeout_s = DELETE_TIMEOUT_S;
	error = ask(path, fields, now_ms() + timeout_s * 1000L, &code, message, &size);
	if (deleting)
		return 0; /* a pod can always go; the agent finds out by itself */
	if (error && without_agent(c, environment("CNI_ARGS"), path, error))
		return 1;
	if (!error && code)
		return fail((int)code, message, size);
	return hand_on(c, adding);
}

static int known_command(const char *command)
{
	const char *const known[] = {"ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"};

	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(command, known[i]))
			return 1;
	return 0;
}

int main(void)
{
	const char *command = environment("CNI_COMMAND");
	struct configuration c = {0};
	size_t length = 0;
	const char *bad;
	ssize_t n;

	signal(SIGPIPE, SIG_IGN);
	if (!known_command(command))
		return fail_text(INVALID_ENVIRONMENT, "CNI_COMMAND has to be ADD, DEL, CHECK, GC, STATUS or VERSION");
	while ((n = read(STDIN_FILENO, input + length, sizeof input - length)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_text(IO_FAILURE, "cannot read the configuration from standard input");
		length += (size_t)n;
		if (length > MAX_INPUT)
			return fail_text(UNREADABLE, "the configuration is longer than 4 MiB");
	}
	if (!strcmp(command, "VERSION"))
		return tell_versions();
	bad = read_configuration(length, &c);
	if (c.version.at && known_version(c.version))
		memcpy(said_version, c.version.at, c.version.length);
	if (bad) {
		char message[128];

		snprintf(message, sizeof message, "the configuration cannot be read: %s", bad);
		return fail_text(UNREADABLE, message);
	}
	if (!c.version.at || !known_version(c.version))
		return fail_text(INCOMPATIBLE_VERSION, "cniVersion has to be 0.3.0, 0.3.1, 0.4.0, 1.0.0 or 1.1.0");
	/* Ready whether or not the agent is: a node that is not ready could not start the agent. Each ADD is judged. */
	if (!strcmp(command, "GC") || !strcmp(command, "STATUS"))
		return 0;
	return consult(&c, command, length);
}
