/* Convolutions by oneDNN, and their gradients, as custom calls of XLA on a CPU (convolution.py).

   Arrays are as in JAX: [batch, height, width, channels], kernels [height, width, inputs, outputs].
   oneDNN has layouts of its own for kernels, which are copied there and back, or packed once for
   many calls. What depends on the shapes alone is made once and kept.

   Built by `pip install .` where oneDNN's headers are; convolution.py does without it. */

#include <cstdint>
#include <map>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using dnnl::memory;
using Array = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Array>;
using Numbers = ffi::Span<const int64_t>;
using Shape = std::vector<int64_t>;

enum class Computes { kOutput, kInputGradient, kKernelGradient, kPackedKernel };

struct Geometry {
  Computes what;
  bool packed; /* whether the kernel is in packed_layout */
  Shape x, kernel, y;
  Shape strides; /* height, width */
  Shape padding; /* above, below, left, right */

  bool operator<(const Geometry &other) const {
    return std::tie(what, packed, x, kernel, y, strides, padding) <
           std::tie(other.what, other.packed, other.x, other.kernel, other.y, other.strides,
                    other.padding);
  }
};

using Layout = memory::format_tag;
using Forward = dnnl::convolution_forward::primitive_desc;

const auto kDirect = dnnl::algorithm::convolution_direct;

const dnnl::engine &cpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

memory::desc floats(const Shape &shape, Layout layout) {
  return {shape, memory::data_type::f32, layout};
}

memory::desc images(const Shape &s) { return floats({s[0], s[3], s[1], s[2]}, Layout::nhwc); }

memory::desc filters(const Shape &s, Layout layout) {
  return floats({s[3], s[2], s[0], s[1]}, layout);
}

/* Scratchpads come with each call: oneDNN's own belong to the thread that made a primitive. */
dnnl::primitive_attr attributes() {
  dnnl::primitive_attr result;
  result.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return result;
}

Forward forward(const Geometry &g) {
  return Forward(cpu(), dnnl::prop_kind::forward_training, kDirect, images(g.x),
                 filters(g.kernel, Layout::any), floats({g.kernel[3]}, Layout::x), images(g.y),
                 g.strides, {g.padding[0], g.padding[2]}, {g.padding[1], g.padding[3]},
                 attributes());
}

/* What oneDNN likes best for one image, if that takes no more memory than JAX's layout. */
memory::desc packed_layout(Geometry g) {
  g.x[0] = g.y[0] = 1;
  const auto plain = filters(g.kernel, Layout::hwio), best = forward(g).weights_desc();
  return best.get_size() == plain.get_size() ? best : plain;
}

/* An argument of a primitive, in the layout that JAX gives and in the primitive's. */
struct Argument {
  int name;
  memory::desc given, used;
  bool output;
  dnnl::reorder copy; /* from one to the other; empty where they are the same */

  Argument(int name, const memory::desc &given, const memory::desc &used, bool output = false)
      : name(name), given(given), used(used), output(output) {
    if (given != used)
      copy = output ? dnnl::reorder({cpu(), used, cpu(), given})
                    : dnnl::reorder({cpu(), given, cpu(), used});
  }
};

struct Convolution {
  dnnl::primitive primitive;
  std::vector<Argument> arguments;
  memory::desc scratchpad;

  explicit Convolution(const Geometry &g) {
    const auto x = images(g.x), y = images(g.y), bias = floats({g.kernel[3]}, Layout::x);
    const auto plain = filters(g.kernel, Layout::hwio), best = filters(g.kernel, Layout::any);
    const auto kernel = g.packed ? packed_layout(g) : plain;
    const Shape before{g.padding[0], g.padding[2]}, behind{g.padding[1], g.padding[3]};
    if (g.what == Computes::kPackedKernel) {
      primitive = dnnl::reorder({cpu(), plain, cpu(), kernel});
      arguments = {{DNNL_ARG_FROM, plain, plain}, {DNNL_ARG_TO, kernel, kernel, true}};
    } else if (g.what == Computes::kInputGradient) {
      const dnnl::convolution_backward_data::primitive_desc backward(
          cpu(), kDirect, x, best, y, g.strides, before, behind, forward(g), attributes());
      primitive = dnnl::convolution_backward_data(backward);
      scratchpad = backward.scratchpad_desc();
      arguments = {{DNNL_ARG_WEIGHTS, kernel, backward.weights_desc()},
                   {DNNL_ARG_DIFF_DST, y, y},
                   {DNNL_ARG_DIFF_SRC, x, x, true}};
    } else if (g.what == Computes::kKernelGradient) {
      const dnnl::convolution_backward_weights::primitive_desc backward(
          cpu(), kDirect, x, best, y, g.strides, before, behind, forward(g), attributes());
      primitive = dnnl::convolution_backward_weights(backward);
      scratchpad = backward.scratchpad_desc();
      arguments = {{DNNL_ARG_SRC, x, x},
                   {DNNL_ARG_DIFF_DST, y, y},
                   {DNNL_ARG_DIFF_WEIGHTS, kernel, backward.diff_weights_desc(), true}};
    } else {
      const Forward output = forward(g);
      primitive = dnnl::convolution_forward(output);
      scratchpad = output.scratchpad_desc();
      arguments = {{DNNL_ARG_SRC, x, x},
                   {DNNL_ARG_WEIGHTS, kernel, output.weights_desc()},
                   {DNNL_ARG_BIAS, bias, bias},
                   {DNNL_ARG_DST, y, y, true}};
    }
  }

  void operator()(const std::vector<void *> &data) const {
    dnnl::stream stream(cpu());
    std::vector<memory> given, used;
    std::unordered_map<int, memory> named;
    for (size_t i = 0; i < data.size(); i++) {
      const Argument &argument = arguments[i];
      given.emplace_back(argument.given, cpu(), data[i]);
      used.push_back(argument.copy ? memory(argument.used, cpu()) : given[i]);
      if (argument.copy && !argument.output) argument.copy.execute(stream, given[i], used[i]);
      named[argument.name] = used[i];
    }
    named[DNNL_ARG_SCRATCHPAD] = memory(scratchpad, cpu());
    primitive.execute(stream, named);
    for (size_t i = 0; i < data.size(); i++)
      if (arguments[i].copy && arguments[i].output)
        arguments[i].copy.execute(stream, used[i], given[i]);
    stream.wait();
  }
};

ffi::Error run(const Geometry &geometry, const std::vector<void *> &data) {
  static std::mutex turns; /* each convolution has all cores, so one at a time */
  static auto *made = new std::map<Geometry, Convolution>;
  const std::lock_guard<std::mutex> turn(turns);
  try {
    auto found = made->find(geometry);
    if (found == made->end()) found = made->emplace(geometry, Convolution(geometry)).first;
    found->second(data);
  } catch (const std::exception &error) {
    return ffi::Error::Internal(std::string("oneDNN: ") + error.what());
  }
  return ffi::Error::Success();
}

Shape shape(const Array &array) { return {array.dimensions().begin(), array.dimensions().end()}; }

Shape list(Numbers numbers) { return {numbers.begin(), numbers.end()}; }

ffi::Error output(Array x, Array kernel, Array bias, Result y, bool packed, Numbers strides,
                  Numbers padding) {
  return run({Computes::kOutput, packed, shape(x), shape(kernel), shape(*y), list(strides),
              list(padding)},
             {x.untyped_data(), kernel.untyped_data(), bias.untyped_data(), y->untyped_data()});
}

ffi::Error input_gradient(Array kernel, Array dy, Result dx, bool packed, Numbers strides,
                          Numbers padding) {
  return run({Computes::kInputGradient, packed, shape(*dx), shape(kernel), shape(dy),
              list(strides), list(padding)},
             {kernel.untyped_data(), dy.untyped_data(), dx->untyped_data()});
}

ffi::Error kernel_gradient(Array x, Array dy, Result dk, bool packed, Numbers strides,
                           Numbers padding) {
  return run({Computes::kKernelGradient, packed, shape(x), shape(*dk), shape(dy), list(strides),
              list(padding)},
             {x.untyped_data(), dy.untyped_data(), dk->untyped_data()});
}

/* `x` and `y` are the shapes of what the kernel is for. */
ffi::Error packed_kernel(Array kernel, Result packed, Numbers x, Numbers y, Numbers strides,
                         Numbers padding) {
  return run({Computes::kPackedKernel, true, list(x), shape(kernel), list(y), list(strides),
              list(padding)},
             {kernel.untyped_data(), packed->untyped_data()});
}

}  // namespace

#define SHAPED .Attr<Numbers>("strides").Attr<Numbers>("padding")
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    Output, output,
    ffi::Ffi::Bind().Arg<Array>().Arg<Array>().Arg<Array>().Ret<Array>().Attr<bool>("packed") SHAPED);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    InputGradient, input_gradient,
    ffi::Ffi::Bind().Arg<Array>().Arg<Array>().Ret<Array>().Attr<bool>("packed") SHAPED);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    KernelGradient, kernel_gradient,
    ffi::Ffi::Bind().Arg<Array>().Arg<Array>().Ret<Array>().Attr<bool>("packed") SHAPED);
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    PackedKernel, packed_kernel,
    ffi::Ffi::Bind().Arg<Array>().Ret<Array>().Attr<Numbers>("x").Attr<Numbers>("y") SHAPED);
