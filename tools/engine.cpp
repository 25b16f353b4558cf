#include "tools/engine.h"

#include <cblas.h>
#include <omp.h>

namespace ermoe {

Engine::Engine(int threads, uint64_t seed) : allocator(make_host_source()), staging(make_host_source()), workspace(allocator) {
#if defined(OPENBLAS_VERSION)
  openblas_set_num_threads(1);  // ops/cpu/blas.cpp splits products over our own threads
#endif
  omp_set_num_threads(threads);  // after OpenBLAS, whose OpenMP build passes its own number on to OpenMP
  ctx.allocator = &allocator;
  ctx.workspace = &workspace;
  ctx.comm = &comm;
  ctx.rng = RngKey{seed};
}

}  // namespace ermoe
