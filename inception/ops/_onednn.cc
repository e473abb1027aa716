/* Convolutions by oneDNN, and their gradients, as custom calls of XLA on a CPU (onednn.py).

   Arrays are as in JAX: [batch, height, width, channels], kernels [height, width, inputs, outputs].
   oneDNN has blocked layouts of its own for kernels. They are reordered there and back at every call,
   or once for many calls. What depends on the shapes alone is computed once and kept.

   Built by `pip install .` where oneDNN's headers are installed; convolution.py works without it. */

#include <cstdint>
#include <map>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using dnnl::memory;
using Numbers = ffi::Span<const int64_t>;
using Shape = std::vector<int64_t>;

struct Geometry {
  std::string result; /* "output", "input_gradient", "kernel_gradient" or "blocked_kernel" */
  Shape x, kernel, y;
  int64_t stride;
  Shape padding; /* top, bottom, left, right */
  bool blocked;  /* whether the kernel is in blocked_layout */

  bool operator<(const Geometry &other) const {
    return std::tie(result, x, kernel, y, stride, padding, blocked) <
           std::tie(other.result, other.x, other.kernel, other.y, other.stride, other.padding,
                    other.blocked);
  }
  Shape strides() const { return {stride, stride}; }
  Shape before() const { return {padding[0], padding[2]}; }
  Shape after() const { return {padding[1], padding[3]}; }
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
                 filters(g.kernel, Layout::any), images(g.y), g.strides(), g.before(), g.after(),
                 attributes());
}

/* The fastest layout for one image, if it takes no more memory than JAX's. */
memory::desc blocked_layout(Geometry g) {
  g.x[0] = g.y[0] = 1;
  const auto plain = filters(g.kernel, Layout::hwio), best = forward(g).weights_desc();
  return best.get_size() == plain.get_size() ? best : plain;
}

/* An argument of a primitive, in JAX's layout and in the primitive's. */
struct Argument {
  int name;
  memory::desc given, used;
  bool output;
  dnnl::reorder reorder; /* from one to the other; empty if they are the same */

  Argument(int name, const memory::desc &given, const memory::desc &used, bool output = false)
      : name(name), given(given), used(used), output(output) {
    if (given != used)
      reorder = output ? dnnl::reorder({cpu(), used, cpu(), given})
                    : dnnl::reorder({cpu(), given, cpu(), used});
  }
};

struct Convolution {
  dnnl::primitive primitive;
  std::vector<Argument> arguments;
  memory::desc scratchpad;

  explicit Convolution(const Geometry &g) {
    const auto x = images(g.x), y = images(g.y);
    const auto plain = filters(g.kernel, Layout::hwio), best = filters(g.kernel, Layout::any);
    const auto kernel = g.blocked ? blocked_layout(g) : plain;
    if (g.result == "blocked_kernel") {
      primitive = dnnl::reorder({cpu(), plain, cpu(), kernel});
      arguments = {{DNNL_ARG_FROM, plain, plain}, {DNNL_ARG_TO, kernel, kernel, true}};
    } else if (g.result == "input_gradient") {
      const dnnl::convolution_backward_data::primitive_desc backward(
          cpu(), kDirect, x, best, y, g.strides(), g.before(), g.after(), forward(g),
          attributes());
      primitive = dnnl::convolution_backward_data(backward);
      scratchpad = backward.scratchpad_desc();
      arguments = {{DNNL_ARG_WEIGHTS, kernel, backward.weights_desc()},
                   {DNNL_ARG_DIFF_DST, y, y},
                   {DNNL_ARG_DIFF_SRC, x, x, true}};
    } else if (g.result == "kernel_gradient") {
      const dnnl::convolution_backward_weights::primitive_desc backward(
          cpu(), kDirect, x, best, y, g.strides(), g.before(), g.after(), forward(g),
          attributes());
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
      used.push_back(argument.reorder ? memory(argument.used, cpu()) : given[i]);
      if (argument.reorder && !argument.output) argument.reorder.execute(stream, given[i], used[i]);
      named[argument.name] = used[i];
    }
    named[DNNL_ARG_SCRATCHPAD] = memory(scratchpad, cpu());
    primitive.execute(stream, named);
    for (size_t i = 0; i < data.size(); i++)
      if (arguments[i].reorder && arguments[i].output)
        arguments[i].reorder.execute(stream, used[i], given[i]);
    stream.wait();
  }
};

Shape shape(Numbers sizes) { return {sizes.begin(), sizes.end()}; }

ffi::Error compute(ffi::RemainingArgs arrays, ffi::RemainingRets results, std::string_view result,
                   Numbers x, Numbers kernel, Numbers y, int64_t stride, Numbers padding,
                   bool blocked) {
  static std::mutex turns; /* a convolution uses all cores, so one at a time */
  static auto *cache = new std::map<Geometry, Convolution>;
  const Geometry geometry{std::string(result), shape(x), shape(kernel), shape(y), stride,
                          shape(padding), blocked};
  std::vector<void *> data;
  for (size_t i = 0; i < arrays.size(); i++)
    data.push_back(arrays.get<ffi::AnyBuffer>(i)->untyped_data());
  data.push_back(results.get<ffi::AnyBuffer>(0).value()->untyped_data());
  const std::lock_guard<std::mutex> turn(turns);
  try {
    auto found = cache->find(geometry);
    if (found == cache->end()) found = cache->emplace(geometry, Convolution(geometry)).first;
    found->second(data);
  } catch (const std::exception &error) {
    return ffi::Error::Internal(std::string("oneDNN: ") + error.what());
  }
  return ffi::Error::Success();
}

}  // namespace

/* Takes float32 arrays in the order of onednn.py: images, kernel, gradient of the output. */
XLA_FFI_DEFINE_HANDLER_SYMBOL(InceptionConvolve, compute,
                              ffi::Ffi::Bind()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<std::string_view>("result")
                                  .Attr<Numbers>("x")
                                  .Attr<Numbers>("kernel")
                                  .Attr<Numbers>("y")
                                  .Attr<int64_t>("stride")
                                  .Attr<Numbers>("padding")
                                  .Attr<bool>("blocked"));
