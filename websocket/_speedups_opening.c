/* The opening handshake, once for each connection: heads of requests, and the answer to a key.
 *
 * Each is a tenth of what it costs a server to take a client in. Part of _speedups.c, whose rules
 * hold here too. What a head must be is told by the twin, websocket/plain_request.py; anything
 * that is not plain is left to the rules in http11.py, so nothing is ever refused here.
 */

#include "_speedups.h"

/* --- reading a head (RFC 9112, 3 and 5) ------------------------------------------------------- */

static int
is_visible(unsigned char octet)
{
    return octet > ' ' && octet < 0x7f;
}

/* RFC 9110, 5.6.2: tchar. */
static int
is_token_octet(unsigned char octet)
{
    return (octet >= 'a' && octet <= 'z') || (octet >= 'A' && octet <= 'Z')
           || (octet >= '0' && octet <= '9') || octet == '-'
           || (octet != 0 && strchr("!#$%&'*+.^_`|~", octet) != NULL);
}

/* RFC 9110, 5.5: visible characters, spaces, tabs and obs-text. */
static int
is_value_octet(unsigned char octet)
{
    return (octet >= ' ' && octet != 0x7f) || octet == '\t';
}

/* Find the parts of a plain request line; return its size with the line end, 0 for none. */
static Py_ssize_t
split_request_line(const char *head, Py_ssize_t size, Py_ssize_t *path_end, Py_ssize_t *target_end)
{
    static const char method[] = "GET /", version[] = " HTTP/1.1\r\n";
    const Py_ssize_t begin = sizeof method - 2, rest = sizeof version - 1;
    Py_ssize_t at = begin + 1;

    if (size <= at || memcmp(head, method, sizeof method - 1) != 0 || head[at] == '/') {
        return 0;
    }
    while (at < size && is_visible((unsigned char)head[at]) && strchr("#%.?\\", head[at]) == NULL) {
        at++;
    }
    *path_end = at;
    if (at < size && head[at] == '?') {
        while (at < size && is_visible((unsigned char)head[at]) && head[at] != '#') {
            if (head[at] == '%' && size - at > 2 && head[at + 1] == '0' && head[at + 2] == '0') {
                return 0;
            }
            at++;
        }
    }
    *target_end = at;
    return size - at >= rest && memcmp(head + at, version, (size_t)rest) == 0 ? at + rest : 0;
}

static PyObject *
as_text(const char *from, const char *to)
{
    return PyUnicode_DecodeLatin1(from, to - from, NULL);
}

/* Read one field line into the dict; return its end, head for a line that is none, NULL for an
 * error. The name is written in lower case to where scratch points. */
static const char *
read_field_line(const char *head, const char *line, const char *end, char *scratch, PyObject *fields)
{
    const char *at = line, *value, *value_end;
    Py_ssize_t length = 0;
    PyObject *name, *text;
    int result;

    for (; at < end && is_token_octet((unsigned char)*at); at++) {
        scratch[length++] = (char)(*at >= 'A' && *at <= 'Z' ? *at | 0x20 : *at);
    }
    if (at == line || at == end || *at++ != ':') {
        return head;
    }
    value = at;
    while (at < end && is_value_octet((unsigned char)*at)) {
        at++;
    }
    if (end - at < 2 || at[0] != '\r' || at[1] != '\n') {
        return head;
    }
    value_end = at;
    while (value < value_end && (*value == ' ' || *value == '\t')) {
        value++;
    }
    while (value < value_end && (value_end[-1] == ' ' || value_end[-1] == '\t')) {
        value_end--;
    }
    name = as_text(scratch, scratch + length);
    text = as_text(value, value_end);
    result = name == NULL || text == NULL ? -1 : PyDict_SetItem(fields, name, text);
    Py_XDECREF(name);
    Py_XDECREF(text);
    return result < 0 ? NULL : at + 2;
}

/* Read all field lines; 1 if each is one and no name stands twice, 0 if not, -1 for an error. */
static int
read_field_lines(const char *line, const char *end, PyObject *fields)
{
    const char *head = line, *next = head;
    Py_ssize_t count = 0;
    char *scratch = PyMem_Malloc((size_t)(end - line) + 1);

    if (scratch == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (; line < end; line = next, count++) {
        next = read_field_line(head, line, end, scratch, fields);
        if (next == NULL || next == head) {
            break;
        }
    }
    PyMem_Free(scratch);
    return line == end ? PyDict_Size(fields) == count : next == NULL ? -1 : 0;
}

const char speedups_split_plain_head_doc[] =
    "split_plain_head($module, data, size, /)\n"
    "--\n"
    "\n"
    "Split the head of a plain request, as websocket.plain_request.split_plain_head_pure does.";

PyObject *
speedups_split_plain_head(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    Py_ssize_t size, length, line_size, path_end, target_end;
    PyObject *fields, *parts = NULL;
    const char *path;
    char *head;
    int is_plain;

    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "split_plain_head() takes 2 arguments, not %zd", count);
        return NULL;
    }
    if (PyBytes_AsStringAndSize(arguments[0], &head, &length) < 0
        || as_size(arguments[1], &size) < 0) {
        return NULL;
    }
    if (size < 2 || size > length) {
        PyErr_SetString(PyExc_ValueError, "split_plain_head() wants the size of a head in the data");
        return NULL;
    }
    /* The last line is empty. */
    size -= 2;
    line_size = split_request_line(head, size, &path_end, &target_end);
    if (line_size == 0) {
        Py_RETURN_NONE;
    }
    fields = PyDict_New();
    if (fields == NULL) {
        return NULL;
    }
    is_plain = read_field_lines(head + line_size, head + size, fields);
    if (is_plain > 0) {
        path = head + sizeof "GET " - 1;
        parts = Py_BuildValue(
            "NNNNO", as_text(path, head + target_end), as_text(path, head + path_end),
            as_text(head + path_end + (target_end > path_end), head + target_end),
            as_text(head + line_size, head + size), fields);
    }
    Py_DECREF(fields);
    if (is_plain == 0) {
        Py_RETURN_NONE;
    }
    return parts;
}

/* --- answering a key (RFC 6455, 4.2.2; RFC 3174) ----------------------------------------------- */

#define KEY_LENGTH 24
#define BLOCK_SIZE 64
#define DIGEST_WORDS 5

static uint32_t
rotate(uint32_t word, int bits)
{
    return word << bits | word >> (32 - bits);
}

/* Add one block to the hash (RFC 3174, 6.1). Not for secrets: SHA-1 is what the protocol names. */
static void
hash_block(uint32_t hash[DIGEST_WORDS], const unsigned char block[BLOCK_SIZE])
{
    uint32_t w[80], a = hash[0], b = hash[1], c = hash[2], d = hash[3], e = hash[4], f, next;
    int t;

    for (t = 0; t < 16; t++) {
        w[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16
               | (uint32_t)block[4 * t + 2] << 8 | (uint32_t)block[4 * t + 3];
    }
    for (; t < 80; t++) {
        w[t] = rotate(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
    }
    for (t = 0; t < 80; t++) {
        if (t < 20) {
            f = ((b & c) | (~b & d)) + 0x5A827999;
        }
        else if (t < 40) {
            f = (b ^ c ^ d) + 0x6ED9EBA1;
        }
        else if (t < 60) {
            f = ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDC;
        }
        else {
            f = (b ^ c ^ d) + 0xCA62C1D6;
        }
        next = rotate(a, 5) + f + e + w[t];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    hash[0] += a;
    hash[1] += b;
    hash[2] += c;
    hash[3] += d;
    hash[4] += e;
}

const char speedups_accept_key_doc[] =
    "accept_key($module, key, /)\n"
    "--\n"
    "\n"
    "Answer a Sec-WebSocket-Key of 24 characters, as websocket.key.accept_key_pure does.";

PyObject *
speedups_accept_key(PyObject *Py_UNUSED(module), PyObject *key)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const size_t length = KEY_LENGTH + sizeof guid - 1;
    uint32_t hash[DIGEST_WORDS] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    /* The message, a one bit, zeros, and the number of bits in the last eight octets: two blocks. */
    unsigned char blocks[2 * BLOCK_SIZE] = {0}, digest[4 * DIGEST_WORDS + 1] = {0};
    char accept[28];
    Py_ssize_t size;
    const char *text;
    int i;

    text = PyUnicode_AsUTF8AndSize(key, &size);
    if (text == NULL) {
        return NULL;
    }
    if (size != KEY_LENGTH) {
        PyErr_SetString(PyExc_ValueError, "a Sec-WebSocket-Key has 24 characters");
        return NULL;
    }
    memcpy(blocks, text, KEY_LENGTH);
    memcpy(blocks + KEY_LENGTH, guid, sizeof guid - 1);
    blocks[length] = 0x80;
    blocks[2 * BLOCK_SIZE - 2] = (unsigned char)(8 * length >> 8);
    blocks[2 * BLOCK_SIZE - 1] = (unsigned char)(8 * length);
    hash_block(hash, blocks);
    hash_block(hash, blocks + BLOCK_SIZE);
    for (i = 0; i < 4 * DIGEST_WORDS; i++) {
        digest[i] = (unsigned char)(hash[i / 4] >> (24 - 8 * (i % 4)));
    }
    /* 20 octets are 27 characters of 6 bits, the last filled up with zeros, and one "=". */
    for (i = 0; i < 27; i++) {
        unsigned pair = (unsigned)digest[6 * i / 8] << 8 | digest[6 * i / 8 + 1];
        accept[i] = digits[pair >> (10 - 6 * i % 8) & 63];
    }
    accept[27] = '=';
    return PyUnicode_DecodeASCII(accept, sizeof accept, NULL);
}
