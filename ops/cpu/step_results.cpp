// A training step's results on the CPU.
#include "ops/kernels/step_results.h"

namespace ermoe::cpu {

void begin_results(StepResults* results) { *results = {.draws = results->draws}; }

template <typename T>
void add_results(const ResultTerms<T>& terms, StepResults* results) {
  add_terms(terms, *results);
}

void flag_faults(const StepResults* results, float* flag) { *flag = unsound(*results) ? 1 : 0; }

template void add_results(const ResultTerms<float>&, StepResults*);
template void add_results(const ResultTerms<double>&, StepResults*);

}  // namespace ermoe::cpu
