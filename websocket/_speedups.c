/* The optional C accelerator: what Python cannot do near the limit, and nothing else.
 *
 * Each function here has a twin in Python, which the tests hold it against: same results, same
 * errors. Nothing is kept between two calls, so any number of interpreters and threads may call
 * at the same time; the bytes that a call reads must not be written meanwhile.
 *
 * Here is the module, and what is done for each frame; what is done for each connection is in
 * _speedups_opening.c. websocket/speedups.py decides whether any of this is used; setup.py knows
 * how it is built. From Python 3.11 on that is with the stable ABI: one binary for all later
 * versions.
 */

#include "_speedups.h"

#define KEY_SIZE 4

/* --- masking (RFC 6455, 5.3) ------------------------------------------------------------------ */

/* XOR with the repeated key; in and out may be the same. memcpy makes a word of any address, and
 * compilers turn the first loop into vector instructions. */
static void
mask_octets(unsigned char *out, const unsigned char *in, size_t size, const unsigned char *key)
{
    uint64_t words = size / sizeof(uint64_t);
    uint64_t repeated, word;
    size_t at;

    memcpy(&repeated, key, KEY_SIZE);
    memcpy((unsigned char *)&repeated + KEY_SIZE, key, KEY_SIZE);
    for (at = 0; at < words; at++) {
        memcpy(&word, in + at * sizeof word, sizeof word);
        word ^= repeated;
        memcpy(out + at * sizeof word, &word, sizeof word);
    }
    for (at = words * sizeof word; at < size; at++) {
        out[at] = in[at] ^ key[at % KEY_SIZE];
    }
}

/* Return the four octets of a masking key, or NULL with an exception set. */
static const unsigned char *
as_key(PyObject *key)
{
    char *octets;
    Py_ssize_t size;

    if (PyBytes_AsStringAndSize(key, &octets, &size) < 0) {
        return NULL;
    }
    if (size != KEY_SIZE) {
        PyErr_Format(PyExc_ValueError, "a masking key has 4 octets, not %zd", size);
        return NULL;
    }
    return (const unsigned char *)octets;
}

PyDoc_STRVAR(apply_mask_doc,
"apply_mask($module, data, key, /)\n"
"--\n"
"\n"
"Mask or unmask a payload, as websocket.masking.apply_mask_pure does.");

static PyObject *
apply_mask(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    const unsigned char *key;
    unsigned char *out;
    PyObject *masked;
    Py_buffer data;

    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "apply_mask() takes 2 arguments, not %zd", count);
        return NULL;
    }
    key = as_key(arguments[1]);
    if (key == NULL || PyObject_GetBuffer(arguments[0], &data, PyBUF_FULL_RO) < 0) {
        return NULL;
    }
    masked = PyBytes_FromStringAndSize(NULL, data.len);
    if (masked != NULL) {
        out = (unsigned char *)PyBytes_AsString(masked);
        if (PyBuffer_IsContiguous(&data, 'C')) {
            mask_octets(out, data.buf, (size_t)data.len, key);
        }
        else if (PyBuffer_ToContiguous(out, &data, data.len, 'C') == 0) {
            mask_octets(out, out, (size_t)data.len, key);
        }
        else {
            Py_CLEAR(masked);
        }
    }
    PyBuffer_Release(&data);
    return masked;
}

/* --- reading (RFC 6455, 5.2) ------------------------------------------------------------------ */

#define FIN 0x80
#define MASK 0x80
#define TEXT 0x1
#define BINARY 0x2

/* Return the length of the payload and move *start behind the length field. -1: not in its
 * shortest form, too large for the platform, or not all there. */
static Py_ssize_t
read_length(const unsigned char *frame, Py_ssize_t available, Py_ssize_t *start)
{
    unsigned field = frame[1] & ~MASK & 0xff;
    uint64_t length = 0;
    int width = field == 126 ? 2 : 8;
    int octet;

    *start = 2;
    if (field < 126) {
        return (Py_ssize_t)field;
    }
    if (available < 2 + width) {
        return -1;
    }
    for (octet = 0; octet < width; octet++) {
        length = length << 8 | frame[2 + octet];
    }
    *start += width;
    if (length < 126 || (width == 8 && length < 0x10000) || length > PY_SSIZE_T_MAX) {
        return -1;
    }
    return (Py_ssize_t)length;
}

/* Return str for text, else bytes. For text that is not UTF-8: NULL, as for any other error. */
static PyObject *
read_payload(int opcode, const unsigned char *payload, Py_ssize_t size, const unsigned char *key)
{
    PyObject *octets, *text;
    char *out;

    if (key == NULL) {
        return opcode == TEXT ? PyUnicode_DecodeUTF8((const char *)payload, size, "strict")
                              : PyBytes_FromStringAndSize((const char *)payload, size);
    }
    octets = PyBytes_FromStringAndSize(NULL, size);
    if (octets == NULL) {
        return NULL;
    }
    out = PyBytes_AsString(octets);
    mask_octets((unsigned char *)out, payload, (size_t)size, key);
    if (opcode == BINARY) {
        return octets;
    }
    text = PyUnicode_DecodeUTF8(out, size, "strict");
    Py_DECREF(octets);
    return text;
}

/* Append (opcode, message), and own the message. */
static int
append_item(PyObject *items, int opcode, PyObject *message)
{
    PyObject *number = PyLong_FromLong(opcode);
    PyObject *item = number == NULL ? NULL : PyTuple_Pack(2, number, message);
    int result = item == NULL ? -1 : PyList_Append(items, item);

    Py_XDECREF(number);
    Py_XDECREF(item);
    Py_DECREF(message);
    return result;
}

/* Read one plain frame at the beginning of data; return its size, 0 for none, -1 for an error. */
static Py_ssize_t
read_plain_frame(const unsigned char *data, Py_ssize_t available, int is_masked,
                 Py_ssize_t max_size, PyObject *items)
{
    const unsigned char *key = NULL;
    Py_ssize_t length, start;
    PyObject *message;
    int opcode;

    if (available < 2 || (data[0] != (FIN | TEXT) && data[0] != (FIN | BINARY))
        || (data[1] & MASK) != (is_masked ? MASK : 0)) {
        return 0;
    }
    opcode = data[0] & ~FIN & 0xff;
    length = read_length(data, available, &start);
    if (length < 0 || length > max_size) {
        return 0;
    }
    if (is_masked) {
        key = data + start;
        start += KEY_SIZE;
    }
    if (start > available || length > available - start) {
        return 0;
    }
    message = read_payload(opcode, data + start, length, key);
    if (message == NULL) {
        if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
            PyErr_Clear();
            return 0;
        }
        return -1;
    }
    return append_item(items, opcode, message) < 0 ? -1 : start + length;
}

PyDoc_STRVAR(read_plain_frames_doc,
"read_plain_frames($module, data, at, is_masked, max_size, items, /)\n"
"--\n"
"\n"
"Read plain frames, as websocket.plain_frames.read_plain_frames_pure does.");

static PyObject *
read_plain_frames(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    Py_ssize_t at, size, max_size, max_items, taken = 0;
    int is_masked;
    Py_buffer data;

    if (count != 7) {
        PyErr_Format(PyExc_TypeError, "read_plain_frames() takes 7 arguments, not %zd", count);
        return NULL;
    }
    if (as_size(arguments[1], &at) < 0 || as_size(arguments[2], &size) < 0
        || as_size(arguments[4], &max_size) < 0 || as_size(arguments[5], &max_items) < 0
        || (is_masked = PyObject_IsTrue(arguments[3])) < 0
        || PyObject_GetBuffer(arguments[0], &data, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    if (at < 0 || size > data.len || !PyList_Check(arguments[6])) {
        PyErr_SetString(PyExc_ValueError, "read_plain_frames() wants a range within the data, "
                                          "and a list");
        taken = -1;
    }
    else {
        max_items -= PyList_Size(arguments[6]);
        while (max_items-- > 0) {
            taken = read_plain_frame((const unsigned char *)data.buf + at, size - at, is_masked,
                                     max_size, arguments[6]);
            if (taken <= 0) {
                break;
            }
            at += taken;
        }
    }
    PyBuffer_Release(&data);
    return taken < 0 ? NULL : PyLong_FromSsize_t(at);
}

/* --- writing (RFC 6455, 5.2) ------------------------------------------------------------------ */

/* From here on header and payload go side by side, as frame_writer.py does. */
#define JOIN_LIMIT (16 * 1024)

static Py_ssize_t
write_header(unsigned char *out, int head, Py_ssize_t length)
{
    int width = length < 126 ? 0 : length < 0x10000 ? 2 : 8;
    int octet;

    out[0] = (unsigned char)head;
    out[1] = (unsigned char)(width == 0 ? length : width == 2 ? 126 : 127);
    for (octet = 0; octet < width; octet++) {
        out[2 + octet] = (unsigned char)((uint64_t)length >> (8 * (width - 1 - octet)));
    }
    return 2 + width;
}

/* Return one frame in a tuple of one or two buffers. */
static PyObject *
frame_payload(int head, PyObject *payload)
{
    unsigned char header[10];
    Py_ssize_t header_size, length;
    PyObject *first, *frame = NULL;
    char *octets, *out;

    if (PyBytes_AsStringAndSize(payload, &octets, &length) < 0) {
        return NULL;
    }
    header_size = write_header(header, head, length);
    if (length >= JOIN_LIMIT) {
        first = PyBytes_FromStringAndSize((const char *)header, header_size);
        frame = first == NULL ? NULL : PyTuple_Pack(2, first, payload);
    }
    else {
        first = PyBytes_FromStringAndSize(NULL, header_size + length);
        if (first != NULL) {
            out = PyBytes_AsString(first);
            memcpy(out, header, (size_t)header_size);
            memcpy(out + header_size, octets, (size_t)length);
            frame = PyTuple_Pack(1, first);
        }
    }
    Py_XDECREF(first);
    return frame;
}

PyDoc_STRVAR(frame_message_doc,
"frame_message($module, message, /)\n"
"--\n"
"\n"
"Encode a message in one frame, as websocket.frame_writer.frame_message_pure does.");

static PyObject *
frame_message(PyObject *Py_UNUSED(module), PyObject *message)
{
    PyObject *payload = message, *frame, *name;
    int head = FIN | BINARY;

    if (PyUnicode_Check(message)) {
        head = FIN | TEXT;
        payload = PyUnicode_AsUTF8String(message);
    }
    else if (PyBytes_CheckExact(message)) {
        Py_INCREF(payload);
    }
    else if (PyBytes_Check(message) || PyByteArray_Check(message) || PyMemoryView_Check(message)) {
        payload = PyBytes_FromObject(message);
    }
    else {
        name = PyObject_GetAttrString((PyObject *)Py_TYPE(message), "__name__");
        payload = NULL;
        if (name != NULL) {
            PyErr_Format(PyExc_TypeError, "a message is str or bytes-like, not %U", name);
            Py_DECREF(name);
        }
    }
    if (payload == NULL) {
        return NULL;
    }
    frame = frame_payload(head, payload);
    Py_DECREF(payload);
    return frame;
}

/* --- the module ------------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"apply_mask", (PyCFunction)(void (*)(void))apply_mask, METH_FASTCALL, apply_mask_doc},
    {"read_plain_frames", (PyCFunction)(void (*)(void))read_plain_frames, METH_FASTCALL,
     read_plain_frames_doc},
    {"frame_message", frame_message, METH_O, frame_message_doc},
    {"split_plain_head", (PyCFunction)(void (*)(void))speedups_split_plain_head, METH_FASTCALL,
     speedups_split_plain_head_doc},
    {"accept_key", speedups_accept_key, METH_O, speedups_accept_key_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
/* The stable ABI of 3.11 knows neither slot: there a subinterpreter with a GIL of its own takes
 * the code in Python. */
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "websocket._speedups",
    .m_doc = "The optional C accelerator; see websocket.speedups.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&definition);
}
