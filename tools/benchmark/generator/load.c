/* The load generator: one thread, epoll, frames that are built before the run.
 *
 *     load echo|fanout|churn|hold --port N --payloads FILE [options]
 *
 *     echo    each connection keeps --depth messages in flight
 *     fanout  one more connection publishes; the next message goes out when all have the last one
 *     churn   connect, upgrade, one echo, close, and again
 *     hold    open all connections, answer pings, until told to end
 *
 * It prints {"mark": "begin"} and {"mark": "end"} around the window and waits for a line on its
 * standard input after each (clock.h says why), then one JSON object with the result. What the
 * server costs is for others to measure.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "clock.h"
#include "frames.h"
#include "stream.h"

#define BUFFER_SIZE (256 * 1024)
/* From this size on payloads are dropped in the kernel. */
#define LARGE (16 * 1024)
#define OPENING_TIMEOUT (60 * SECOND)
#define STALL_TIMEOUT (5 * SECOND)
/* A server is to close the TCP connection after the closing handshake, RFC 6455, 7.1.1. */
#define CLOSING_TIMEOUT SECOND
#define BATCH 1024

/* The key and its answer of RFC 6455, 1.3. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

enum phase { NONE, UPGRADING, OPEN, CLOSING };

struct connection {
    struct stream stream;
    struct reader reader;
    enum phase phase;
    int is_watching_output, is_close_received;
    const uint8_t *pending; /* being sent; what is owed waits behind it */
    size_t pending_size;
    uint32_t owed, cursor;
    uint8_t control[MAX_HEAD + MAX_CONTROL];
    size_t control_size;
    uint64_t opened_at, sent_at;
    char answer[1024];
    size_t answer_size;
};

/* What a mode does when something happens to a connection. */
struct mode {
    const char *name;
    void (*opened)(struct connection *);
    void (*received)(struct connection *, uint32_t messages);
    void (*ended)(struct connection *);
    void (*run)(void);
};

static const char *path = "/", *payload_file, *extensions = "";
static uint32_t connection_count = 1, parallel = 64, depth = 1, flood;
static double seconds = 1.0, warm_up = 0.3;
static const struct mode *mode;

static int poller;
static struct connection *connections;
static struct frames frames;
static uint8_t buffer[BUFFER_SIZE], close_frame[MAX_HEAD];
static size_t close_frame_size;
static char request[512];
static uint32_t open_count, outstanding, flood_replies;
static uint64_t progress;

/* --- one connection ------------------------------------------------------------------------- */

static void watch(struct connection *connection, int operation, int wants_output)
{
    struct epoll_event event = {.events = EPOLLIN | (wants_output ? EPOLLOUT : 0),
                                .data.ptr = connection};
    connection->is_watching_output = wants_output;
    if (epoll_ctl(poller, operation, connection->stream.fd, &event))
        stop("epoll_ctl");
}

static void open_connection(struct connection *connection)
{
    memset(connection, 0, offsetof(struct connection, answer));
    connection->answer_size = 0;
    connection->opened_at = now();
    stream_open(&connection->stream);
    connection->phase = UPGRADING;
    connection->cursor = next_random() % frames.count;
    connection->pending = (const uint8_t *)request;
    connection->pending_size = strlen(request);
    watch(connection, EPOLL_CTL_ADD, 1);
}

static void close_connection(struct connection *connection)
{
    if (connection->phase == NONE)
        return;
    stream_close(&connection->stream);
    connection->phase = NONE;
}

static int choose_pending(struct connection *connection)
{
    if (connection->control_size) {
        connection->pending = connection->control;
        connection->pending_size = connection->control_size;
    } else if (connection->owed) {
        size_t *from = frames.offset + connection->cursor;
        connection->pending = frames.bytes + *from;
        connection->pending_size = from[connection->owed] - *from;
        connection->cursor = (connection->cursor + connection->owed) % frames.count;
        connection->owed = 0;
    }
    return connection->pending_size != 0;
}

static void flush(struct connection *connection)
{
    int wants_output;
    while (connection->pending_size || choose_pending(connection)) {
        ssize_t sent = stream_send(&connection->stream, connection->pending, connection->pending_size);
        if (sent < 0) {
            mode->ended(connection);
            return;
        }
        if (!sent)
            break;
        connection->pending += sent;
        connection->pending_size -= (size_t)sent;
        if (!connection->pending_size && connection->control_size
            && connection->pending == connection->control + connection->control_size)
            connection->control_size = 0;
    }
    wants_output = connection->pending_size && !connection->stream.waits_for_input;
    if (wants_output != connection->is_watching_output)
        watch(connection, EPOLL_CTL_MOD, wants_output);
}

static void send_messages(struct connection *connection, uint32_t count)
{
    connection->owed += count;
    flush(connection);
}

/* RFC 6455, 5.5.3: a pong that has not been sent yet stands for the later pings as well. */
static void answer_ping(struct connection *connection)
{
    window.pings++;
    if (connection->control_size)
        return;
    connection->control_size = write_frame(connection->control, PONG, connection->reader.control,
                                           connection->reader.control_length);
}

static void feed(struct connection *connection, const uint8_t *data, size_t size)
{
    uint32_t messages = 0;
    int is_over, has_ping = 0;
    while (size) {
        size_t taken = take(&connection->reader, data, size, &is_over);
        data += taken;
        size -= taken;
        if (!is_over)
            continue;
        if (connection->reader.opcode == PING) {
            answer_ping(connection);
            has_ping = 1;
        }
        if (connection->reader.opcode == CLOSE)
            connection->is_close_received = 1;
        messages += (uint32_t)end_frame(&connection->reader);
    }
    if (messages)
        mode->received(connection, messages);
    else if (has_ping)
        flush(connection);
}

/* Read the answer to the upgrade; what stands behind it is frames. */
static void read_answer_of(struct connection *connection, const uint8_t *data, size_t size)
{
    size_t room = sizeof connection->answer - 1 - connection->answer_size, part, head;
    char *end;
    part = size < room ? size : room;
    memcpy(connection->answer + connection->answer_size, data, part);
    connection->answer_size += part;
    connection->answer[connection->answer_size] = 0;
    end = strstr(connection->answer, "\r\n\r\n");
    if (!end) {
        if (part < size)
            fail("the answer to the upgrade is too long");
        return;
    }
    if (strncmp(connection->answer, "HTTP/1.1 101 ", 13) || !strstr(connection->answer, ACCEPT)) {
        fail("the upgrade was answered by %.60s", connection->answer);
        return;
    }
    head = (size_t)(end + 4 - connection->answer) - (connection->answer_size - part);
    connection->phase = OPEN;
    open_count++;
    mode->opened(connection);
    if (connection->phase != NONE)
        feed(connection, data + head, size - head);
}

/* Read as much as one call gives; large payloads are not copied. */
static ssize_t receive_some(struct connection *connection, size_t *asked)
{
    struct reader *reader = &connection->reader;
    int is_large = expected_size >= LARGE && connection->phase == OPEN && !connection->stream.is_tls;
    ssize_t size;
    if (is_large && reader->is_in_payload && reader->opcode < CLOSE) {
        *asked = reader->remaining;
        size = stream_discard(&connection->stream, *asked);
        if (size > 0 && !(reader->remaining -= (size_t)size) && end_frame(reader))
            mode->received(connection, 1);
        return size;
    }
    *asked = is_large ? MAX_HEAD : BUFFER_SIZE;
    size = stream_receive(&connection->stream, buffer, *asked);
    if (size > 0 && connection->phase == UPGRADING)
        read_answer_of(connection, buffer, (size_t)size);
    else if (size > 0)
        feed(connection, buffer, (size_t)size);
    return size;
}

static void receive(struct connection *connection)
{
    size_t asked;
    ssize_t size;
    do {
        size = receive_some(connection, &asked);
        if (size < 0 && connection->phase != NONE)
            mode->ended(connection);
        progress += size > 0;
        /* TLS keeps bytes that epoll does not know of; of the rest epoll tells again. */
    } while (size > 0 && connection->phase != NONE
             && (connection->stream.is_tls || (size_t)size == asked));
}

/* --- the loop ------------------------------------------------------------------------------- */

static void turn(int milliseconds)
{
    static struct epoll_event events[BATCH];
    int count = epoll_wait(poller, events, BATCH, milliseconds);
    for (int i = 0; i < count; i++) {
        struct connection *connection = events[i].data.ptr;
        if (!connection) /* the standard input, which its owner looks at */
            continue;
        if (connection->pending_size)
            flush(connection);
        if (connection->phase != NONE && events[i].events & ~(uint32_t)EPOLLOUT)
            receive(connection);
    }
}

static void run_for(double duration)
{
    static uint64_t last, changed;
    uint64_t time = now(), deadline = time + (uint64_t)(duration * SECOND);
    changed = changed ? changed : time;
    for (; time < deadline && !first_error[0]; time = now()) {
        uint64_t left = (deadline - time) / 1000000;
        turn(left < 100 ? (int)left : 100);
        if (progress != last) {
            last = progress;
            changed = time;
        } else if (time - changed > STALL_TIMEOUT) {
            fail("nothing arrived for 5 seconds");
        }
    }
}

static void open_all(void)
{
    uint64_t deadline = now() + OPENING_TIMEOUT;
    uint32_t begun = open_count;
    while (open_count < connection_count && !first_error[0]) {
        while (begun < connection_count && begun < open_count + parallel)
            open_connection(&connections[begun++]);
        turn(100);
        if (now() > deadline)
            fail("%u of %u connections are open after a minute", open_count, connection_count);
    }
}

static void measure(void)
{
    run_for(warm_up);
    begin_window();
    if (flood)
        send_messages(&connections[connection_count - 1], flood);
    run_for(seconds);
    end_window();
    read_answer();
    if (flood_replies < flood)
        fail("%u replies to a flood of %u", flood_replies, flood);
}

/* --- modes ---------------------------------------------------------------------------------- */

static void do_nothing(struct connection *connection) { (void)connection; }

static void lost(struct connection *connection)
{
    if (connection->is_close_received && connection->reader.control_length >= 2)
        fail("the server closed a connection with %d",
             connection->reader.control[0] << 8 | connection->reader.control[1]);
    else
        fail("a connection was lost");
    close_connection(connection);
}

static void echo_received(struct connection *connection, uint32_t messages)
{
    uint64_t time;
    if (flood && connection == &connections[connection_count - 1]) {
        flood_replies += messages;
        return;
    }
    window.operations += messages;
    if (depth == 1) {
        time = now();
        if (window.is_open)
            record(time - connection->sent_at);
        connection->sent_at = time;
    }
    send_messages(connection, messages);
}

static void run_echo(void)
{
    open_all();
    for (uint32_t i = 0; i < connection_count - (flood != 0) && !first_error[0]; i++) {
        connections[i].sent_at = now();
        send_messages(&connections[i], depth);
    }
    measure();
}

static void publish(void)
{
    struct connection *publisher = &connections[connection_count - 1];
    outstanding = connection_count - 1;
    publisher->sent_at = now();
    send_messages(publisher, 1);
}

static void fanout_received(struct connection *connection, uint32_t messages)
{
    struct connection *publisher = &connections[connection_count - 1];
    if (connection == publisher || messages > outstanding) {
        fail("a message arrived that nobody waits for");
        return;
    }
    window.operations += messages;
    outstanding -= messages;
    if (!outstanding) {
        if (window.is_open)
            record(now() - publisher->sent_at);
        publish();
    }
}

static void build_request(const char *where, uint16_t port)
{
    snprintf(request, sizeof request,
             "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
             where, port, extensions);
}

static void run_fanout(void)
{
    open_all();
    build_request("/publish", ntohs(server_address.sin_port));
    connection_count++;
    open_all();
    run_for(0.2); /* the server has told the last of them, and now takes them up */
    publish();
    measure();
}

static void churn_opened(struct connection *connection) { send_messages(connection, 1); }

static void churn_received(struct connection *connection, uint32_t messages)
{
    (void)messages;
    connection->phase = CLOSING;
    memcpy(connection->control, close_frame, close_frame_size);
    connection->control_size = close_frame_size;
    flush(connection);
}

static void churn_ended(struct connection *connection)
{
    if (connection->phase != CLOSING) {
        lost(connection);
        return;
    }
    close_connection(connection);
    window.operations++;
    window.unclean += !connection->is_close_received;
    if (window.is_open)
        record(now() - connection->opened_at);
    open_connection(connection);
}

/* End what a server leaves open after the closing handshake. */
static void sweep(void)
{
    for (uint32_t i = 0; i < connection_count; i++)
        if (connections[i].phase == CLOSING && now() - connections[i].opened_at > CLOSING_TIMEOUT) {
            connections[i].is_close_received = 0;
            churn_ended(&connections[i]);
        }
}

static void churn_for(double duration)
{
    for (double left = duration; left > 0 && !first_error[0]; left -= 0.1) {
        run_for(left < 0.1 ? left : 0.1);
        sweep();
    }
}

static void run_churn(void)
{
    for (uint32_t i = 0; i < connection_count; i++)
        open_connection(&connections[i]);
    churn_for(warm_up);
    begin_window();
    churn_for(seconds);
    end_window();
    read_answer();
}

static void hold_received(struct connection *connection, uint32_t messages)
{
    (void)connection;
    (void)messages;
    fail("a message arrived that nobody waits for");
}

static int has_input(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&input, 1, 0) > 0;
}

static void run_hold(void)
{
    struct epoll_event event = {.events = EPOLLIN};
    begin_window();
    open_all();
    window.operations = open_count;
    end_window();
    if (epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event))
        stop("epoll_ctl");
    while (!first_error[0] && !has_input())
        turn(1000);
    read_answer();
}

static const struct mode MODES[] = {
    {"echo", do_nothing, echo_received, lost, run_echo},
    {"fanout", do_nothing, fanout_received, lost, run_fanout},
    {"churn", churn_opened, churn_received, churn_ended, run_churn},
    {"hold", do_nothing, hold_received, lost, run_hold},
};

/* --- the command line ----------------------------------------------------------------------- */

static void use_deflate(void)
{
    extensions = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
}

static void parse_options(int count, char **words)
{
    int has_deflate = 0;
    for (int i = 1; i < count; i++) {
        const char *name = words[i], *value = i + 1 < count ? words[i + 1] : "";
        if (!strcmp(name, "--text"))
            expected_opcode = TEXT;
        else if (!strcmp(name, "--deflate"))
            has_deflate = 1, use_deflate();
        else if (!strcmp(name, "--tls"))
            use_tls();
        else if (i++, !strcmp(name, "--port"))
            server_address.sin_port = htons((uint16_t)atoi(value));
        else if (!strcmp(name, "--payloads"))
            payload_file = value;
        else if (!strcmp(name, "--connections"))
            connection_count = (uint32_t)atoi(value);
        else if (!strcmp(name, "--parallel"))
            parallel = (uint32_t)atoi(value);
        else if (!strcmp(name, "--depth"))
            depth = (uint32_t)atoi(value);
        else if (!strcmp(name, "--flood"))
            flood = (uint32_t)atoi(value);
        else if (!strcmp(name, "--addresses"))
            address_count = (uint32_t)atoi(value);
        else if (!strcmp(name, "--seconds"))
            seconds = atof(value);
        else if (!strcmp(name, "--warm-up"))
            warm_up = atof(value);
        else {
            fprintf(stderr, "load: there is no option %s\n", name);
            exit(2);
        }
    }
    if (!payload_file || !server_address.sin_port || !connection_count || !depth || !parallel
        || !address_count) {
        fprintf(stderr, "load: --port and --payloads are needed, and no number may be 0\n");
        exit(2);
    }
    connection_count += flood != 0;
    frames = build_frames(payload_file, expected_opcode | (has_deflate ? 0x40 : 0),
                          flood > depth ? flood : depth);
    if (has_deflate)
        expected_size = 0;
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int count, char **words)
{
    for (size_t i = 0; count > 1 && i < sizeof MODES / sizeof *MODES; i++)
        if (!strcmp(words[1], MODES[i].name))
            mode = &MODES[i];
    if (!mode) {
        fprintf(stderr, "usage: load echo|fanout|churn|hold --port N --payloads FILE [options]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    server_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    parse_options(count - 1, words + 1);
    build_request(path, ntohs(server_address.sin_port));
    close_frame_size = write_frame(close_frame, CLOSE, (const uint8_t *)"\x03\xe8", 2);
    poller = epoll_create1(EPOLL_CLOEXEC);
    /* One more, for who publishes. */
    connections = calloc(connection_count + 1, sizeof *connections);
    if (poller < 0 || !connections)
        stop("memory");
    mode->run();
    print_result();
    return first_error[0] ? 1 : 0;
}
