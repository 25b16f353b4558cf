// Replicas on the CPU.
#include "ops/kernels/share_replicas.h"

namespace ermoe::cpu {

template <typename T>
void share_replicas(const ReplicaDims& dims, const int32_t* ids, const T* replica_of, int32_t* shared) {
  for (int64_t slot = 0; slot < dims.tokens * dims.slots; ++slot) shared[slot] = id_with_replicas(dims, replica_of, slot, ids[slot]);
}

template void share_replicas(const ReplicaDims&, const int32_t*, const float*, int32_t*);
template void share_replicas(const ReplicaDims&, const int32_t*, const double*, int32_t*);

}  // namespace ermoe::cpu
