// What every layer is: typed members, and one `visit` that names them. State dicts, arenas, init, layer decay, freezing
// and sharding all go through it. Read next: models/layers.h.
#pragma once

#include "autograd/parameter.h"
#include "core/context.h"
#include "core/flat.h"

#include <functional>
#include <string>
#include <vector>

namespace ermoe {

/// State that training changes without gradients and a checkpoint keeps: routing statistics.
struct Buffer {
  std::string name;
  Shape shape;
  Tensor value;  // the model's dtype
};

/// What a walk over a module's members calls. Either function may be empty.
struct Visitor {
  std::function<void(Parameter&)> parameter;
  std::function<void(Buffer&)> buffer;

  /// Names a member and hands it over.
  void operator()(const std::string& name, Parameter& p) const;
  void operator()(const std::string& name, Buffer& b) const;
};

class Module {
 public:
  virtual ~Module() = default;
  /// Calls `visitor(prefix + ".weight", weight)` for every member, in the order of use. `prefix` is "" at the root.
  virtual void visit(const std::string& prefix, const Visitor& visitor) = 0;
};

/// "blocks.3" + "moe" = "blocks.3.moe"; an empty prefix adds no dot.
std::string join(const std::string& prefix, const std::string& name);

/// Every parameter, named, in the order of use.
std::vector<Parameter*> parameters_of(Module& module);
std::vector<Buffer*> buffers_of(Module& module);

/// A parameter as it is kept, also where ops read a bf16 copy.
Variable in_full_precision(Parameter& p);

// Initial values. Each draws from key.fold(hash of the parameter's name), so they do not depend on the order of calls.
RngKey key_of(RngKey key, const std::string& name);
void fill_normal(const Tensor& t, double deviation, RngKey key);
/// Uniform in ±sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010).
void fill_xavier(const Tensor& t, int64_t fan_in, int64_t fan_out, RngKey key);

}  // namespace ermoe
