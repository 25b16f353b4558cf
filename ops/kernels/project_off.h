// Contract of the project_off kernel. Read next: ops/cpu/project_off.cpp.
#pragma once

#include "core/device.h"
#include "core/workspace.h"

#include <cstdint>

namespace ermoe {

struct ProjectOffDims {
  int64_t E = 0, D = 0, R = 0, c = 0;  // experts, width, basis vectors an expert, columns of the rest
};

namespace cpu {

/// rest_e (D, c) -= B_e (B_eᵀ rest_e), B_e the columns e·R … (e+1)·R of basis (D, E*R).
template <typename T>
void project_off_basis(Workspace& workspace, const ProjectOffDims& dims, const T* basis, T* rest);

}  // namespace cpu

namespace cuda {

template <typename T>
void project_off_basis(const Stream& stream, Workspace& workspace, const ProjectOffDims& dims, const T* basis, T* rest);

}  // namespace cuda
}  // namespace ermoe
