/* The optional C accelerator of the reactor: receiving and sending by number of descriptor.
 *
 * The methods of Python's sockets parse their arguments by a format, know four kinds of timeout
 * and give the interpreter's lock away and take it back. For a socket that never blocks, that is
 * a tenth of what the echo of a short message costs. The lock is kept here: what the system does
 * meanwhile is to copy at most what fits into a socket's buffer.
 *
 * reactor/speedups.py decides whether any of this is used; setup.py knows how it is built.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <sys/socket.h>
#include <sys/types.h>

/* Where there is no such flag, Python ignores SIGPIPE, as it does everywhere. */
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* Read the two arguments, a descriptor and a buffer; -1 with an exception set. */
static int
read_arguments(PyObject *const *arguments, Py_ssize_t count, int flags, Py_buffer *buffer)
{
    long fd;

    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "2 arguments wanted, not %zd", count);
        return -1;
    }
    fd = PyLong_AsLong(arguments[0]);
    if (fd == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (fd < 0 || fd > INT_MAX) {
        PyErr_Format(PyExc_ValueError, "%ld is no descriptor", fd);
        return -1;
    }
    return PyObject_GetBuffer(arguments[1], buffer, flags) < 0 ? -1 : (int)fd;
}

static PyObject *
finish(Py_buffer *buffer, ssize_t size)
{
    /* Before anything else, which might change errno. */
    PyObject *result = size < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromSsize_t(size);

    PyBuffer_Release(buffer);
    return result;
}

PyDoc_STRVAR(receive_doc,
"receive($module, fd, buffer, /)\n"
"--\n"
"\n"
"Receive from a non-blocking socket, as socket.recv_into does; 0 is the end of the stream.");

static PyObject *
receive(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    Py_buffer buffer;
    int fd = read_arguments(arguments, count, PyBUF_WRITABLE, &buffer);

    return fd < 0 ? NULL : finish(&buffer, recv(fd, buffer.buf, (size_t)buffer.len, 0));
}

PyDoc_STRVAR(send_doc,
"send($module, fd, data, /)\n"
"--\n"
"\n"
"Send to a non-blocking socket, as socket.send does.");

static PyObject *
send_octets(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    Py_buffer data;
    int fd = read_arguments(arguments, count, PyBUF_SIMPLE, &data);

    return fd < 0 ? NULL : finish(&data, send(fd, data.buf, (size_t)data.len, MSG_NOSIGNAL));
}

static PyMethodDef methods[] = {
    {"receive", (PyCFunction)(void (*)(void))receive, METH_FASTCALL, receive_doc},
    {"send", (PyCFunction)(void (*)(void))send_octets, METH_FASTCALL, send_doc},
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
    .m_name = "reactor._speedups",
    .m_doc = "The optional C accelerator; see reactor.speedups.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&definition);
}
