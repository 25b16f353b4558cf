// Hopper's matrix instruction: a warpgroup (four warps, the first a multiple of four) multiplies bf16 tiles of shared memory
// into float sums in its registers, asynchronously. Use: fence, multiply_async…, commit, wait, then `settle` the sums.
// Sums of a (64, N) tile: warp w of the group has rows 16w to 16w + 15; lane l holds, with g = l / 4 and t = l % 4,
// d[4j], d[4j + 1]: row g, columns 8j + 2t and + 1; d[4j + 2], d[4j + 3]: the same of row g + 8.
#pragma once

#include <cstdint>

namespace ermoe::cuda {

/// Which axis of an operand is contiguous in shared memory.
enum class Major { k = 0, mn = 1 };

/// An operand in shared memory, as boxes that TMA wrote with the 128-byte swizzle, each aligned to 1024 bytes: lines of 128
/// bytes (64 bf16), of which eight follow each other in an atom of 1024 bytes. `Major::k`: a line is 64 k of one row of A or
/// column of B. `Major::mn`: a line is 64 rows of A or columns of B at one k; the next 64 are `block_bytes` away.
/// 16 k further on, `Major::k` begins 32 bytes later, `Major::mn` two atoms.
template <Major M>
__device__ __forceinline__ uint64_t operand(uint32_t address, uint32_t block_bytes) {
  constexpr uint64_t swizzle_128 = uint64_t{1} << 62, next_atom = uint64_t{1024 >> 4} << 32;
  const uint64_t leading = M == Major::mn ? block_bytes >> 4 : 1;  // without meaning where k is contiguous
  return swizzle_128 | next_atom | leading << 16 | (address & 0x3ffff) >> 4;
}
/// The operand 16 k further on, times `steps`.
template <Major M>
__device__ __forceinline__ uint64_t step(uint64_t operand, int steps) {
  return operand + static_cast<uint64_t>(steps) * ((M == Major::k ? 32 : 2048) >> 4);
}

/// Before the first product, and whenever registers of the sums were touched since the last.
__device__ __forceinline__ void multiply_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void multiply_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits until at most `Pending` of the latest groups are not done.
template <int Pending>
__device__ __forceinline__ void multiply_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}
/// After the wait: keeps the compiler from reading the sums before it.
template <int Count>
__device__ __forceinline__ void settle(float (&d)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

#define ERMOE_EIGHT(i) \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])

/// sums += A B: (64, 16) by (16, 8). `keep` 0: sums = A B.
template <Major A, Major B>
__device__ __forceinline__ void multiply_async(float (&d)[4], uint64_t a, uint64_t b, int keep) {
  asm volatile(
      "{\n"
      ".reg .pred keep;\n"
      "setp.ne.b32 keep, %6, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, keep, 1, 1, %7, %8;\n"
      "}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "l"(a), "l"(b), "r"(keep), "n"(static_cast<int>(A)), "n"(static_cast<int>(B)));
}

/// sums += A B: (64, 16) by (16, 64). `keep` 0: sums = A B.
template <Major A, Major B>
__device__ __forceinline__ void multiply_async(float (&d)[32], uint64_t a, uint64_t b, int keep) {
  asm volatile(
      "{\n"
      ".reg .pred keep;\n"
      "setp.ne.b32 keep, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, %32, %33, keep, 1, 1, %35, %36;\n"
      "}\n"
      : ERMOE_EIGHT(0), ERMOE_EIGHT(8), ERMOE_EIGHT(16), ERMOE_EIGHT(24)
      : "l"(a), "l"(b), "r"(keep), "n"(static_cast<int>(A)), "n"(static_cast<int>(B)));
}

/// sums += A B: (64, 16) by (16, 128). `keep` 0: sums = A B.
template <Major A, Major B>
__device__ __forceinline__ void multiply_async(float (&d)[64], uint64_t a, uint64_t b, int keep) {
  asm volatile(
      "{\n"
      ".reg .pred keep;\n"
      "setp.ne.b32 keep, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, %64, %65, keep, 1, 1, %67, %68;\n"
      "}\n"
      : ERMOE_EIGHT(0), ERMOE_EIGHT(8), ERMOE_EIGHT(16), ERMOE_EIGHT(24), ERMOE_EIGHT(32), ERMOE_EIGHT(40), ERMOE_EIGHT(48), ERMOE_EIGHT(56)
      : "l"(a), "l"(b), "r"(keep), "n"(static_cast<int>(A)), "n"(static_cast<int>(B)));
}

/// sums += A B: (64, 16) by (16, 192). `keep` 0: sums = A B.
template <Major A, Major B>
__device__ __forceinline__ void multiply_async(float (&d)[96], uint64_t a, uint64_t b, int keep) {
  asm volatile(
      "{\n"
      ".reg .pred keep;\n"
      "setp.ne.b32 keep, %98, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
      "}, %96, %97, keep, 1, 1, %99, %100;\n"
      "}\n"
      : ERMOE_EIGHT(0), ERMOE_EIGHT(8), ERMOE_EIGHT(16), ERMOE_EIGHT(24), ERMOE_EIGHT(32), ERMOE_EIGHT(40), ERMOE_EIGHT(48),
        ERMOE_EIGHT(56), ERMOE_EIGHT(64), ERMOE_EIGHT(72), ERMOE_EIGHT(80), ERMOE_EIGHT(88)
      : "l"(a), "l"(b), "r"(keep), "n"(static_cast<int>(A)), "n"(static_cast<int>(B)));
}

/// sums += A B: (64, 16) by (16, 256). `keep` 0: sums = A B.
template <Major A, Major B>
__device__ __forceinline__ void multiply_async(float (&d)[128], uint64_t a, uint64_t b, int keep) {
  asm volatile(
      "{\n"
      ".reg .pred keep;\n"
      "setp.ne.b32 keep, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
      "}, %128, %129, keep, 1, 1, %131, %132;\n"
      "}\n"
      : ERMOE_EIGHT(0), ERMOE_EIGHT(8), ERMOE_EIGHT(16), ERMOE_EIGHT(24), ERMOE_EIGHT(32), ERMOE_EIGHT(40), ERMOE_EIGHT(48),
        ERMOE_EIGHT(56), ERMOE_EIGHT(64), ERMOE_EIGHT(72), ERMOE_EIGHT(80), ERMOE_EIGHT(88), ERMOE_EIGHT(96), ERMOE_EIGHT(104),
        ERMOE_EIGHT(112), ERMOE_EIGHT(120)
      : "l"(a), "l"(b), "r"(keep), "n"(static_cast<int>(A)), "n"(static_cast<int>(B)));
}

#undef ERMOE_EIGHT

}  // namespace ermoe::cuda
