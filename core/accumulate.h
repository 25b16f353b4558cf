// One word that kernels, ops and the tape share. It stands apart so that a GPU kernel's contract pulls in nothing else.
#pragma once

namespace ermoe {

/// What a kernel does with its destination; in a GEMM it is beta.
enum class Accumulate { overwrite, add };

}  // namespace ermoe
