/* What the parts of the C accelerator have in common; see _speedups.c. */

#ifndef WEBSOCKET_SPEEDUPS_H
#define WEBSOCKET_SPEEDUPS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

/* Read a size; what is larger than any object can be becomes the largest. -1: not an integer. */
static inline int
as_size(PyObject *number, Py_ssize_t *size)
{
    *size = PyNumber_AsSsize_t(number, NULL);
    return *size == -1 && PyErr_Occurred() ? -1 : 0;
}

/* _speedups_opening.c */
extern const char speedups_split_plain_head_doc[], speedups_accept_key_doc[];
PyObject *speedups_split_plain_head(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *speedups_accept_key(PyObject *module, PyObject *key);

#endif
