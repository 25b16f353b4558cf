#include "models/module.h"

#include "core/hash.h"

#include <cmath>

namespace ermoe {

void Visitor::operator()(const std::string& name, Parameter& p) const {
  p.name = name;
  if (parameter) parameter(p);
}

void Visitor::operator()(const std::string& name, Buffer& b) const {
  b.name = name;
  if (buffer) buffer(b);
}

std::string join(const std::string& prefix, const std::string& name) { return prefix.empty() ? name : prefix + "." + name; }

std::vector<Parameter*> parameters_of(Module& module) {
  std::vector<Parameter*> found;
  module.visit("", {.parameter = [&](Parameter& p) { found.push_back(&p); }, .buffer = {}});
  return found;
}

std::vector<Buffer*> buffers_of(Module& module) {
  std::vector<Buffer*> found;
  module.visit("", {.parameter = {}, .buffer = [&](Buffer& b) { found.push_back(&b); }});
  return found;
}

Variable in_full_precision(Parameter& p) {
  Variable v(p);
  v.value = p.value;
  return v;
}

RngKey key_of(RngKey key, const std::string& name) { return key.fold(fnv1a(std::as_bytes(std::span(name)))); }

namespace {

template <typename Fn>
void fill_with(const Tensor& t, Fn&& value_at) {
  dispatch_float(t.dtype(), "fill", [&](auto tag) {
    using T = decltype(tag);
    T* data = t.data<T>();
#pragma omp parallel for if (t.numel() > 65536) schedule(static)
    for (int64_t i = 0; i < t.numel(); ++i) data[i] = static_cast<T>(value_at(static_cast<uint64_t>(i)));
  });
}

}  // namespace

void fill_normal(const Tensor& t, double deviation, RngKey key) {
  fill_with(t, [&](uint64_t i) { return deviation * normal(key, i); });
}

void fill_xavier(const Tensor& t, int64_t fan_in, int64_t fan_out, RngKey key) {
  const double bound = std::sqrt(6.0 / static_cast<double>(fan_in + fan_out));
  fill_with(t, [&](uint64_t i) { return bound * (2.0 * uniform(key, i) - 1.0); });
}

}  // namespace ermoe
