/* One connected socket, with TLS over it when the generator was built with OpenSSL.
 *
 * Sending and receiving return the number of bytes, 0 when it would block, -1 at the end.
 */
#ifndef STREAM_H
#define STREAM_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "clock.h"

#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
static SSL_CTX *tls_context; /* NULL for plain TCP */
#endif

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

struct stream {
    int fd;
    int is_tls;
    int waits_for_input; /* TLS cannot send before it has read */
#ifdef WITH_TLS
    SSL *tls;
#endif
};

static struct sockaddr_in server_address = {.sin_family = AF_INET};
static uint32_t address_count = 250, next_address;

/* Return the next address to connect from: 127.1.0.1, 127.2.0.1 ... 127.250.0.1, 127.1.1.1 ...
 * So there are ports enough for connections that linger in TIME_WAIT. */
static struct sockaddr_in source_address(void)
{
    struct sockaddr_in source = {.sin_family = AF_INET};
    uint32_t number = next_address++ % address_count;
    source.sin_addr.s_addr = htonl(0x7f000001u | (1 + number % 250) << 16 | (number / 250 % 256) << 8);
    return source;
}

static void use_tls(void)
{
#ifdef WITH_TLS
    tls_context = SSL_CTX_new(TLS_client_method());
    if (!tls_context)
        stop("SSL_CTX_new");
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
#else
    errno = ENOSYS;
    stop("built without TLS");
#endif
}

static void stream_open(struct stream *stream)
{
    int one = 1;
    struct sockaddr_in source = source_address();
    memset(stream, 0, sizeof *stream);
    stream->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (stream->fd < 0)
        stop("socket");
    setsockopt(stream->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(stream->fd, (struct sockaddr *)&source, sizeof source))
        stop("bind");
    if (connect(stream->fd, (struct sockaddr *)&server_address, sizeof server_address)
        && errno != EINPROGRESS)
        stop("connect");
#ifdef WITH_TLS
    if (tls_context) {
        stream->is_tls = 1;
        stream->tls = SSL_new(tls_context);
        if (!stream->tls || !SSL_set_fd(stream->tls, stream->fd))
            stop("SSL_new");
        SSL_set_connect_state(stream->tls);
    }
#endif
}

static void stream_close(struct stream *stream)
{
#ifdef WITH_TLS
    SSL_free(stream->tls);
    stream->tls = NULL;
#endif
    close(stream->fd);
    stream->fd = -1;
}

#ifdef WITH_TLS
static ssize_t tls_result(struct stream *stream, int result)
{
    if (result > 0)
        return result;
    switch (SSL_get_error(stream->tls, result)) {
    case SSL_ERROR_WANT_READ:
        stream->waits_for_input = 1;
        return 0;
    case SSL_ERROR_WANT_WRITE:
        return 0;
    default:
        ERR_clear_error();
        return -1;
    }
}
#endif

static ssize_t plain_result(ssize_t result)
{
    if (result > 0)
        return result;
    return result < 0 && (errno == EAGAIN || errno == ENOTCONN || errno == EINTR) ? 0 : -1;
}

static ssize_t stream_send(struct stream *stream, const uint8_t *data, size_t size)
{
    stream->waits_for_input = 0;
#ifdef WITH_TLS
    if (stream->is_tls)
        return tls_result(stream, SSL_write(stream->tls, data, (int)size));
#endif
    return plain_result(send(stream->fd, data, size, MSG_NOSIGNAL));
}

static ssize_t stream_receive(struct stream *stream, uint8_t *buffer, size_t size)
{
#ifdef WITH_TLS
    if (stream->is_tls)
        return tls_result(stream, SSL_read(stream->tls, buffer, (int)size));
#endif
    return plain_result(recv(stream->fd, buffer, size, 0));
}

/* Drop bytes in the kernel, without copying them; TCP only. */
static ssize_t stream_discard(struct stream *stream, size_t size)
{
    return plain_result(recv(stream->fd, NULL, size, MSG_TRUNC));
}

#endif
