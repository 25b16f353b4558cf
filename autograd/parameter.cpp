#include "autograd/parameter.h"

namespace ermoe {

std::string_view last_part(std::string_view name) { return name.substr(name.rfind('.') + 1); }

Variable::Variable(Parameter& p) : value(p.compute.defined() ? p.compute : p.value) {
  if (!p.frozen) edge.parameter = &p;
}

}  // namespace ermoe
