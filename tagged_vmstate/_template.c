/* `Packer` and `Unpacker` of template.py, compiled. That file says what they do; tests/test_template.py holds the two together.
 *
 * Whatever is wrong with a template is told when it is made, so that no row and no bytes can lead outside of one.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#if defined(Py_GIL_DISABLED) || defined(PYPY_VERSION)
#error "not for this interpreter: template.py does the same in Python"
#endif
#include <stdint.h>
#include <string.h>

typedef unsigned char byte;

typedef struct {
    int code;
    Py_ssize_t at, size, flag;
    PyObject *kind;    /* borrowed: the packer holds its holes */
    const char *bytes; /* the default of bytes, theirs */
    uint64_t number;   /* the default of a number or a boolean */
    int has_default;
} Hole;

static PyObject *
misfit(void)
{
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "it does not fit the template");
    return NULL;
}

static Py_ssize_t
width(int code)
{
    switch (code) {
    case 'b': case 'B': case '?': return 1;
    case 'h': case 'H': return 2;
    case 'i': case 'I': return 4;
    case 'q': case 'Q': return 8;
    default: return 0;
    }
}

static int
is_inside(Py_ssize_t at, Py_ssize_t size, Py_ssize_t whole)
{
    return at >= 0 && size >= 0 && size <= whole && at <= whole - size;
}

/* The two's complement of an integer that its type can hold; -1 and an error otherwise. */
static int
number_of(PyObject *value, int code, uint64_t *found)
{
    if (code == 'Q') {
        *found = PyLong_AsUnsignedLongLong(value);
        return *found == UINT64_MAX && PyErr_Occurred() ? -1 : 0;
    }
    long long number = PyLong_AsLongLong(value);
    if (number == -1 && PyErr_Occurred())
        return -1;
    *found = (uint64_t)number;
    switch (code) {
    case 'b': return number == (int8_t)number ? 0 : -1;
    case 'h': return number == (int16_t)number ? 0 : -1;
    case 'i': return number == (int32_t)number ? 0 : -1;
    case 'B': return number == (uint8_t)number ? 0 : -1;
    case 'H': return number == (uint16_t)number ? 0 : -1;
    case 'I': return number == (uint32_t)number ? 0 : -1;
    default: return 0;
    }
}

static void
put(byte *out, uint64_t number, Py_ssize_t size)
{
    for (Py_ssize_t place = size; place-- > 0; number >>= 8)
        out[place] = (byte)number;
}

static uint64_t
take(const byte *data, Py_ssize_t size)
{
    uint64_t number = 0;
    for (Py_ssize_t place = 0; place < size; place++)
        number = number << 8 | data[place];
    return number;
}

static void *
zeros(Py_ssize_t count, size_t size)
{
    void *found = PyMem_Calloc(count ? count : 1, size);
    if (!found)
        PyErr_NoMemory();
    return found;
}

static void
freed(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* Packer */

typedef struct {
    PyObject_HEAD
    PyObject *data, *kept;
    Hole *holes;
    Py_ssize_t size, count;
    Py_ssize_t *structs; /* of each: its flag, how many fields it has, their flags */
    Py_ssize_t structs_size;
} Packer;

static void
packer_dealloc(PyObject *object)
{
    Packer *self = (Packer *)object;
    Py_XDECREF(self->data);
    Py_XDECREF(self->kept);
    PyMem_Free(self->holes);
    PyMem_Free(self->structs);
    freed(object);
}

static int
packer_hole(Packer *self, PyObject *from, Hole *hole)
{
    PyObject *value;
    if (!PyTuple_Check(from) || !PyArg_ParseTuple(from, "CnnnOO", &hole->code, &hole->at, &hole->size, &hole->flag, &hole->kind, &value))
        return -1;
    int is_sized = hole->code == 's' || hole->code == '-' || (hole->size > 0 && hole->size == width(hole->code));
    if (!is_sized || !is_inside(hole->at, hole->size, self->size) || !is_inside(hole->flag, 1, self->size))
        return -1;
    if (value == Py_None || hole->code == '-')
        return 0;
    if (hole->code == '?')
        hole->number = value == Py_True;
    else if (hole->code != 's') {
        if (!PyLong_Check(value) || number_of(value, hole->code, &hole->number) < 0)
            return -1;
    }
    else if (PyBytes_Check(value) && PyBytes_Size(value) == hole->size)
        hole->bytes = PyBytes_AsString(value);
    else
        return -1;
    hole->has_default = 1;
    return 0;
}

static int
packer_structs(Packer *self, PyObject *structs)
{
    Py_ssize_t size = 0, at = 0;
    for (Py_ssize_t each = 0; each < PyTuple_Size(structs); each++) {
        PyObject *flag, *members;
        if (!PyArg_ParseTuple(PyTuple_GetItem(structs, each), "OO!", &flag, &PyTuple_Type, &members))
            return -1;
        size += 2 + PyTuple_Size(members);
    }
    self->structs = zeros(size, sizeof(Py_ssize_t));
    if (!self->structs)
        return -1;
    self->structs_size = size;
    for (Py_ssize_t each = 0; each < PyTuple_Size(structs); each++) {
        PyObject *pair = PyTuple_GetItem(structs, each), *members = PyTuple_GetItem(pair, 1);
        Py_ssize_t count = PyTuple_Size(members);
        self->structs[at++] = PyLong_AsSsize_t(PyTuple_GetItem(pair, 0));
        if (!is_inside(self->structs[at - 1], 1, self->size))
            return -1;
        self->structs[at++] = count;
        for (Py_ssize_t member = 0; member < count; member++, at++) {
            self->structs[at] = PyLong_AsSsize_t(PyTuple_GetItem(members, member));
            if (!is_inside(self->structs[at], 1, self->size))
                return -1;
        }
    }
    return 0;
}

static PyObject *
packer_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    PyObject *data, *holes, *structs;
    if (!PyArg_ParseTuple(args, "SO!O!:Packer", &data, &PyTuple_Type, &holes, &PyTuple_Type, &structs))
        return NULL;
    Packer *self = (Packer *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!self)
        return NULL;
    self->data = Py_NewRef(data);
    self->kept = Py_NewRef(holes);
    self->size = PyBytes_Size(data);
    self->count = PyTuple_Size(holes);
    self->holes = zeros(self->count, sizeof(Hole));
    int failed = !self->holes;
    for (Py_ssize_t each = 0; !failed && each < self->count; each++)
        failed = packer_hole(self, PyTuple_GetItem(holes, each), &self->holes[each]) < 0;
    if (failed || packer_structs(self, structs) < 0) {
        Py_DECREF(self);
        return misfit();
    }
    return (PyObject *)self;
}

/* Puts a value into its hole; -1 for an odd one. */
static int
packer_put(const Hole *hole, byte *out, PyObject *value)
{
    uint64_t number;
    if ((PyObject *)Py_TYPE(value) != hole->kind)
        return -1;
    switch (hole->code) {
    case '-':
        out[hole->flag] = value == Py_True;
        return 0;
    case '?':
        number = value == Py_True;
        out[hole->at] = (byte)(0xC2 + number);
        break;
    case 's':
        if (PyBytes_Size(value) != hole->size) {
            PyErr_Clear();
            return -1;
        }
        memcpy(out + hole->at, PyBytes_AsString(value), hole->size);
        out[hole->flag] = hole->has_default && memcmp(out + hole->at, hole->bytes, hole->size) == 0;
        return 0;
    default:
        if (number_of(value, hole->code, &number) < 0)
            return -1;
        put(out + hole->at, number, hole->size);
    }
    out[hole->flag] = hole->has_default && number == hole->number;
    return 0;
}

static PyObject *
packer_pack(PyObject *object, PyObject *row)
{
    const Packer *self = (const Packer *)object;
    if (!PyTuple_Check(row) || PyTuple_Size(row) != self->count)
        return misfit();
    PyObject *data = PyBytes_FromStringAndSize(NULL, self->size);
    if (!data)
        return NULL;
    byte *out = (byte *)PyBytes_AsString(data);
    memcpy(out, PyBytes_AsString(self->data), self->size);
    for (Py_ssize_t each = 0; each < self->count; each++) {
        if (packer_put(&self->holes[each], out, PyTuple_GetItem(row, each)) < 0) {
            Py_DECREF(data);
            return misfit();
        }
    }
    for (const Py_ssize_t *at = self->structs, *end = at + self->structs_size; at < end;) {
        byte *flag = out + *at++, is_default = 1;
        for (Py_ssize_t count = *at++; count > 0; count--)
            is_default &= out[*at++];
        *flag = is_default;
    }
    return data;
}

/* Unpacker */

typedef struct {
    PyObject_HEAD
    Hole *holes;
    Py_ssize_t size, count;
    byte *known, *mask;
} Unpacker;

static void
unpacker_dealloc(PyObject *object)
{
    Unpacker *self = (Unpacker *)object;
    PyMem_Free(self->holes);
    PyMem_Free(self->known);
    PyMem_Free(self->mask);
    freed(object);
}

static int
unpacker_filled(Unpacker *self, PyObject *data, PyObject *holes, PyObject *flags)
{
    self->size = PyBytes_Size(data);
    self->count = PyTuple_Size(holes);
    self->holes = zeros(self->count, sizeof(Hole));
    self->known = zeros(self->size, 1);
    self->mask = zeros(self->size, 1);
    if (!self->holes || !self->known || !self->mask)
        return -1;
    memcpy(self->known, PyBytes_AsString(data), self->size);
    memset(self->mask, 0xFF, self->size);
    for (Py_ssize_t each = 0; each < self->count; each++) {
        PyObject *from = PyTuple_GetItem(holes, each);
        Hole *hole = &self->holes[each];
        if (!PyTuple_Check(from) || !PyArg_ParseTuple(from, "Cnn", &hole->code, &hole->at, &hole->size))
            return -1;
        int is_sized = hole->code == 's' || (hole->size > 0 && hole->size == width(hole->code));
        if (!is_sized || !is_inside(hole->at, hole->size, self->size))
            return -1;
        memset(self->mask + hole->at, hole->code == '?' ? 0xFE : 0, hole->size);
    }
    for (Py_ssize_t each = 0; each < PyTuple_Size(flags); each++) {
        Py_ssize_t flag = PyLong_AsSsize_t(PyTuple_GetItem(flags, each));
        if (!is_inside(flag, 1, self->size))
            return -1;
        self->mask[flag] = 0xFE;
    }
    for (Py_ssize_t at = 0; at < self->size; at++)
        self->known[at] &= self->mask[at];
    return 0;
}

static PyObject *
unpacker_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    PyObject *data, *holes, *flags;
    if (!PyArg_ParseTuple(args, "SO!O!:Unpacker", &data, &PyTuple_Type, &holes, &PyTuple_Type, &flags))
        return NULL;
    Unpacker *self = (Unpacker *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self && unpacker_filled(self, data, holes, flags) < 0) {
        Py_DECREF(self);
        return misfit();
    }
    return (PyObject *)self;
}

static PyObject *
unpacker_value(const Hole *hole, const byte *data)
{
    switch (hole->code) {
    case 's': return PyBytes_FromStringAndSize((const char *)data, hole->size);
    case '?': return PyBool_FromLong(*data & 1);
    case 'B': return PyLong_FromLong(*data);
    case 'b': return PyLong_FromLong((int8_t)*data);
    case 'H': return PyLong_FromLong((uint16_t)take(data, 2));
    case 'h': return PyLong_FromLong((int16_t)take(data, 2));
    case 'I': return PyLong_FromLongLong((uint32_t)take(data, 4));
    case 'i': return PyLong_FromLong((int32_t)take(data, 4));
    case 'Q': return PyLong_FromUnsignedLongLong(take(data, 8));
    default: return PyLong_FromLongLong((int64_t)take(data, 8));
    }
}

static PyObject *
unpacker_row(const Unpacker *self, const byte *data)
{
    byte odd = 0;
    for (Py_ssize_t at = 0; at < self->size; at++)
        odd |= (data[at] ^ self->known[at]) & self->mask[at];
    if (odd)
        return misfit();
    PyObject *row = PyTuple_New(self->count);
    for (Py_ssize_t each = 0; row && each < self->count; each++) {
        PyObject *value = unpacker_value(&self->holes[each], data + self->holes[each].at);
        if (!value || PyTuple_SetItem(row, each, value) < 0)
            Py_CLEAR(row);
    }
    return row;
}

static PyObject *
unpacker_unpack(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    const Unpacker *self = (const Unpacker *)object;
    Py_buffer view;
    if (count != 2)
        return misfit();
    Py_ssize_t at = PyLong_AsSsize_t(args[1]);
    if ((at == -1 && PyErr_Occurred()) || PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *row = is_inside(at, self->size, view.len) ? unpacker_row(self, (const byte *)view.buf + at) : misfit();
    PyBuffer_Release(&view);
    return row;
}

/* The module */

static PyMethodDef packer_methods[] = {
    {"pack", packer_pack, METH_O, "pack(row, /)\n--\n\nThe bytes of a row."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot packer_slots[] = {
    {Py_tp_new, packer_new}, {Py_tp_dealloc, packer_dealloc}, {Py_tp_methods, packer_methods}, {0, NULL},
};
static PyType_Spec packer_spec = {
    "tagged_vmstate._template.Packer", sizeof(Packer), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, packer_slots,
};

static PyMethodDef unpacker_methods[] = {
    {"unpack", (PyCFunction)(void (*)(void))unpacker_unpack, METH_FASTCALL,
     "unpack(data, at, /)\n--\n\nThe row of the bytes at a place."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot unpacker_slots[] = {
    {Py_tp_new, unpacker_new}, {Py_tp_dealloc, unpacker_dealloc}, {Py_tp_methods, unpacker_methods}, {0, NULL},
};
static PyType_Spec unpacker_spec = {
    "tagged_vmstate._template.Unpacker", sizeof(Unpacker), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, unpacker_slots,
};

static int
add_type(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    int failed = !type || PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static int
executed(PyObject *module)
{
    return add_type(module, &packer_spec) || add_type(module, &unpacker_spec) ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, executed}, {0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_template", "`Packer` and `Unpacker` of template.py, compiled.", 0, NULL, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__template(void)
{
    return PyModuleDef_Init(&definition);
}
