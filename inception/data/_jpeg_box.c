/* decode_box: the pixels of a JPEG file inside a box, with no more work than that takes.

   The whole file is Huffman-decoded, so that damage is found even outside the box; inverse
   transform, chroma interpolation and colors, the other 40 % of the time, are computed for the box
   alone. decode.py has the same settings (fast integer DCT, interpolated chroma) for whole files.

   Built by `pip install .` if libjpeg-turbo's header is installed; decode.py also works without. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <setjmp.h>
#include <stdio.h>
#include <jpeglib.h>

#if LIBJPEG_TURBO_VERSION_NUMBER < 2001000
#error "needs libjpeg-turbo 2.1 or later: older ones interpolate the chroma of some files differently"
#endif

typedef struct {
  struct jpeg_error_mgr base;
  jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
} Errors;

typedef struct { /* pixels */
  int y, x, height, width;
} Box;

static void fail(j_common_ptr file) {
  Errors *errors = (Errors *)file->err;
  errors->base.format_message(file, errors->message);
  longjmp(errors->escape, 1);
}

static void warn(j_common_ptr file, int level) {
  if (level < 0) fail(file); /* the rest are traces */
}

static void refuse(j_decompress_ptr file, const char *reason) {
  Errors *errors = (Errors *)file->err;
  snprintf(errors->message, sizeof errors->message, "%s", reason);
  longjmp(errors->escape, 1);
}

static void read_row(j_decompress_ptr file, JSAMPARRAY row) {
  if (!jpeg_read_scanlines(file, row, 1)) refuse(file, "no more rows");
}

/* Reads the header and leaves `file` ready for the box's first row. The rows decoded begin at
   *left, where a block does, and have file->output_width pixels: libjpeg interpolates the chroma at
   the ends of what it decodes otherwise than inside, so there is a chroma sample to spare. */
static void start(j_decompress_ptr file, const Box *box, JDIMENSION *left) {
  jpeg_read_header(file, TRUE);
  if (file->arith_code || file->progressive_mode) refuse(file, "not a baseline JPEG");
  file->out_color_space = JCS_RGB;
  file->dct_method = JDCT_IFAST;
  jpeg_start_decompress(file);

  int height = file->output_height, width = file->output_width;
  if (box->y < 0 || box->height < 1 || box->height > height - box->y || box->x < 0 ||
      box->width < 1 || box->width > width - box->x)
    refuse(file, "the box is not inside the image");
  int first = box->x < 2 ? 0 : box->x - 2;
  int end = width - 2 < box->x + box->width ? width : box->x + box->width + 2;
  JDIMENSION columns = end - first;
  *left = first;
  jpeg_crop_scanline(file, left, &columns);
  if (box->y) jpeg_skip_scanlines(file, box->y);
}

/* Decodes what is below the box, to the file's end, for its errors. */
static void finish(j_decompress_ptr file) {
  JSAMPARRAY row = file->mem->alloc_sarray(
      (j_common_ptr)file, JPOOL_IMAGE, file->output_width * file->output_components, 1);
  /* libjpeg-turbo's issue 915: a skip has to begin where a row of the chroma does. */
  while (file->output_scanline < file->output_height &&
         file->output_scanline % file->max_v_samp_factor)
    read_row(file, row);
  /* To skip to the very end would be to stop reading here. */
  if (file->output_scanline + 1 < file->output_height)
    jpeg_skip_scanlines(file, file->output_height - 1 - file->output_scanline);
  while (file->output_scanline < file->output_height) read_row(file, row);
  jpeg_finish_decompress(file);
}

static PyObject *decode_box(PyObject *module, PyObject *args) {
  (void)module;
  Py_buffer data;
  Box box;
  if (!PyArg_ParseTuple(args, "y*iiii", &data, &box.y, &box.x, &box.height, &box.width))
    return NULL;

  struct jpeg_decompress_struct file;
  Errors errors;
  JDIMENSION left = 0;
  PyObject *volatile pixels = NULL; /* volatile: they change between setjmp and longjmp */
  PyThreadState *volatile unlocked = PyEval_SaveThread();
  file.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = fail;
  errors.base.emit_message = warn;
  file.mem = NULL; /* for jpeg_destroy_decompress, if jpeg_create_decompress fails */

  if (setjmp(errors.escape)) {
    if (unlocked) PyEval_RestoreThread(unlocked);
    Py_CLEAR(pixels);
    PyErr_SetString(PyExc_ValueError, errors.message);
  } else {
    jpeg_create_decompress(&file);
    jpeg_mem_src(&file, data.buf, data.len);
    start(&file, &box, &left);
    Py_ssize_t stride = (Py_ssize_t)file.output_width * file.output_components;

    PyEval_RestoreThread(unlocked);
    unlocked = NULL;
    pixels = PyByteArray_FromStringAndSize(NULL, stride * box.height);
    if (pixels) {
      JSAMPROW row = (JSAMPROW)PyByteArray_AS_STRING(pixels);
      unlocked = PyEval_SaveThread();
      for (int i = 0; i < box.height; i++, row += stride) read_row(&file, &row);
      finish(&file);
      PyEval_RestoreThread(unlocked);
      unlocked = NULL;
    }
  }
  int columns = pixels ? (int)file.output_width : 0;
  jpeg_destroy_decompress(&file);
  PyBuffer_Release(&data);
  if (!pixels) return NULL;
  return Py_BuildValue("Nii", pixels, columns, box.x - (int)left);
}

static PyMethodDef methods[] = {
    {"decode_box", decode_box, METH_VARARGS,
     "decode_box(data, y, x, height, width) -> (pixels, columns, left)\n\n"
     "Decodes a gray or color baseline JPEG to RGB: bytes of [height, columns, 3], in which the\n"
     "box begins at column `left`. ValueError: any other file, or anything wrong with this one."},
    {NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_jpeg_box", .m_methods = methods};

PyMODINIT_FUNC PyInit__jpeg_box(void) { return PyModule_Create(&definition); }
