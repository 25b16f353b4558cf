// Contract of the project_off kernel. Read next: ops/cpu/project_off.cpp.
#pragma once

#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct ProjectOffDims {
  int64_t E = 0, D = 0, R = 0, c = 0;  // experts, width, basis vectors an expert, columns of the rest
  int64_t first = 0, all = 0;          // expert e of the rest is expert first + e of the basis, which has so many

  int64_t products() const { return E * R * c; }
};

namespace cpu {

/// rest_e (D, c) -= B_e (B_eᵀ rest_e), B_e the columns (first+e)·R … (first+e+1)·R of basis (D, all*R). `products`: scratch for
/// dims.products() elements.
template <typename T>
void project_off_basis(const ProjectOffDims& dims, const T* basis, T* rest, T* products);

}  // namespace cpu

namespace cuda {

/// Factors are float on a GPU, whatever the model computes in.
template <typename T>
void project_off_basis(const Stream& stream, const ProjectOffDims& dims, const T* basis, T* rest, T* products);

}  // namespace cuda
}  // namespace ermoe
