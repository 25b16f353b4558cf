// CUPTI writes a record for every kernel, copy and fill, and another that ties it to the number of the op in which it was
// queued. The library is opened when it is asked for: most runs never do, and most machines do not have it.
#include "cuda/runtime/profiler.h"

#if !defined(ERMOE_WITH_CUPTI)

namespace ermoe::cuda {

FoundProfiler find_profiler(const Stream&) { return {nullptr, "this build found no CUPTI, a part of the CUDA toolkit"}; }

}  // namespace ermoe::cuda

#else

#include "core/error.h"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

#include <cupti.h>
#include <cxxabi.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <unordered_map>

namespace ermoe::cuda {
namespace {

#if CUDART_VERSION >= 13000
using KernelRecord = CUpti_ActivityKernel10;
using CopyRecord = CUpti_ActivityMemcpy6;
#else
using KernelRecord = CUpti_ActivityKernel9;
using CopyRecord = CUpti_ActivityMemcpy5;
#endif
using FillRecord = CUpti_ActivityMemset4;

constexpr CUpti_ActivityKind record_kinds[] = {CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION,
                                               CUPTI_ACTIVITY_KIND_RUNTIME,
                                               CUPTI_ACTIVITY_KIND_DRIVER,  // without the calls there is nothing to tie an op to
                                               CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
                                               CUPTI_ACTIVITY_KIND_MEMCPY,
                                               CUPTI_ACTIVITY_KIND_MEMSET};

/// The functions of the library; they keep their names.
struct Cupti {
  decltype(&::cuptiActivityRegisterCallbacks) register_callbacks = nullptr;
  decltype(&::cuptiActivityEnable) enable = nullptr;
  decltype(&::cuptiActivityDisable) disable = nullptr;
  decltype(&::cuptiActivityFlushAll) flush_all = nullptr;
  decltype(&::cuptiActivityGetNextRecord) next_record = nullptr;
  decltype(&::cuptiActivityPushExternalCorrelationId) push = nullptr;
  decltype(&::cuptiActivityPopExternalCorrelationId) pop = nullptr;
  decltype(&::cuptiGetTimestamp) timestamp = nullptr;
  decltype(&::cuptiGetResultString) result_string = nullptr;
  std::string fault;
};

Cupti open_cupti() {
  Cupti cupti;
  const std::string beside = "libcupti.so." + std::to_string(CUDART_VERSION / 1000);
  void* library = nullptr;
  for (const char* name : {beside.c_str(), ERMOE_CUPTI})
    if (library == nullptr) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    cupti.fault = beside + ", CUPTI, is not on this machine";
    return cupti;
  }
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)> >(dlsym(library, name));
    if (function == nullptr) cupti.fault = beside + " has no " + name;
  };
  find(cupti.register_callbacks, "cuptiActivityRegisterCallbacks");
  find(cupti.enable, "cuptiActivityEnable");
  find(cupti.disable, "cuptiActivityDisable");
  find(cupti.flush_all, "cuptiActivityFlushAll");
  find(cupti.next_record, "cuptiActivityGetNextRecord");
  find(cupti.push, "cuptiActivityPushExternalCorrelationId");
  find(cupti.pop, "cuptiActivityPopExternalCorrelationId");
  find(cupti.timestamp, "cuptiGetTimestamp");
  find(cupti.result_string, "cuptiGetResultString");
  return cupti;
}

const Cupti& cupti() {
  static const Cupti opened = open_cupti();
  return opened;
}

/// What went wrong, or nothing.
std::string fault_of(CUptiResult status, const char* call) {
  if (status == CUPTI_SUCCESS) return {};
  const char* text = nullptr;
  cupti().result_string(status, &text);
  return std::string(call) + ": " + (text != nullptr ? text : "an unknown fault");
}

void cupti_check(CUptiResult status, const char* call) {
  const std::string fault = fault_of(status, call);
  check(fault.empty(), "[profiler] {}", fault);
}

std::string readable(const char* name) {
  if (name == nullptr) return "[kernel]";
  int status = 0;
  char* plain = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string text = status == 0 && plain != nullptr ? plain : name;
  std::free(plain);
  return text;
}

/// What the records said. CUPTI hands them to plain functions from a thread of its own, so this cannot be a profiler's member.
struct Records {
  struct Work {
    std::string name;
    uint64_t start, end;  // nanoseconds
    uint32_t correlation;
  };
  std::mutex mutex;
  std::vector<Work> work;
  std::unordered_map<uint32_t, uint64_t> op_of;  // by the number of the call that queued it

  template <typename Record>
  void add(const Record& record, std::string name) {
    work.push_back({std::move(name), record.start, record.end, record.correlationId});
  }
  void add(const CUpti_Activity& record) {
    switch (record.kind) {
      case CUPTI_ACTIVITY_KIND_KERNEL:
      case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: {
        const auto& kernel = reinterpret_cast<const KernelRecord&>(record);
        return add(kernel, readable(kernel.name));
      }
      case CUPTI_ACTIVITY_KIND_MEMCPY: return add(reinterpret_cast<const CopyRecord&>(record), "[copy]");
      case CUPTI_ACTIVITY_KIND_MEMSET: return add(reinterpret_cast<const FillRecord&>(record), "[fill]");
      case CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION: {
        const auto& tie = reinterpret_cast<const CUpti_ActivityExternalCorrelation&>(record);
        op_of[tie.correlationId] = tie.externalId;
        return;
      }
      default: return;  // calls: they only carry the ties
    }
  }
};

Records records;

constexpr size_t buffer_bytes = size_t{8} << 20;

void CUPTIAPI give_buffer(uint8_t** buffer, size_t* bytes, size_t* most_records) {
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(64, buffer_bytes));
  *bytes = *buffer != nullptr ? buffer_bytes : 0;
  *most_records = 0;  // as many as fit
}

void CUPTIAPI take_buffer(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t filled) {
  {
    const std::lock_guard lock(records.mutex);
    CUpti_Activity* record = nullptr;
    while (filled > 0 && cupti().next_record(buffer, filled, &record) == CUPTI_SUCCESS) records.add(*record);
  }
  std::free(buffer);
}

class CuptiProfiler final : public GpuProfiler {
 public:
  explicit CuptiProfiler(const Stream& stream) : stream_(native(stream)) {}
  ~CuptiProfiler() override {
    for (const CUpti_ActivityKind kind : record_kinds) cupti().disable(kind);
  }

  /// Nothing, or why CUPTI will not work here.
  std::string prepare() {
    static const std::string registered =  // once a process
        fault_of(cupti().register_callbacks(give_buffer, take_buffer), "cuptiActivityRegisterCallbacks");
    std::string fault = registered;
    for (const CUpti_ActivityKind kind : record_kinds)
      if (fault.empty()) fault = fault_of(cupti().enable(kind), "cuptiActivityEnable");
    return fault;
  }

  void start() override {
    drain();
    {
      const std::lock_guard lock(records.mutex);
      records.work.clear();
      records.op_of.clear();
    }
    cupti_check(cupti().timestamp(&began_), "cuptiGetTimestamp");
  }

  std::vector<GpuActivity> stop() override {
    drain();
    const std::lock_guard lock(records.mutex);
    std::ranges::sort(records.work, {}, &Records::Work::start);
    std::vector<GpuActivity> all;
    for (const Records::Work& work : records.work) {
      if (work.start < began_ || work.end < work.start) continue;
      const auto op = records.op_of.find(work.correlation);
      all.push_back({.ops = op == records.op_of.end() ? "" : paths_[op->second],
                     .name = work.name,
                     .start = 1e-9 * static_cast<double>(work.start - began_),
                     .seconds = 1e-9 * static_cast<double>(work.end - work.start)});
    }
    return all;
  }

  void enter(std::string_view op) override {
    const std::string& outer = paths_[open_.empty() ? 0 : open_.back()];
    const std::string path = outer.empty() ? std::string(op) : outer + "/" + std::string(op);
    const auto [at, fresh] = numbers_.try_emplace(path, paths_.size());
    if (fresh) paths_.push_back(path);
    open_.push_back(at->second);
    cupti().push(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0, at->second);
  }
  void leave() override {
    uint64_t last = 0;
    cupti().pop(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0, &last);
    open_.pop_back();
  }

 private:
  /// Waits until the GPU is done and its records have come.
  void drain() {
    cuda_check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    cupti_check(cupti().flush_all(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED), "cuptiActivityFlushAll");
  }

  cudaStream_t stream_;
  uint64_t began_ = 0;
  std::vector<std::string> paths_{""};  // by number; 0 is outside of any op
  std::map<std::string, size_t> numbers_;
  std::vector<size_t> open_;  // numbers of the ops that run, the outermost first
};

}  // namespace

FoundProfiler find_profiler(const Stream& stream) {
  if (!cupti().fault.empty()) return {nullptr, cupti().fault};
  auto profiler = std::make_unique<CuptiProfiler>(stream);
  std::string fault = profiler->prepare();
  if (!fault.empty()) return {nullptr, std::move(fault)};
  return {std::move(profiler), {}};
}

}  // namespace ermoe::cuda

#endif
