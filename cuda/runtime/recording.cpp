// A graph is captured in relaxed mode: other threads may use the GPU meanwhile (loaders do), and memory may be taken from the
// driver. Whatever waits for the stream ends the capture with an error, so that no host read hides inside recorded work.
#include "cuda/runtime/recording.h"

#include "core/error.h"
#include "cuda/runtime/check.h"

#include <exception>
#include <type_traits>
#include <utility>

namespace ermoe::cuda {
namespace {

struct GraphDeleter {
  void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
};
struct RunnableDeleter {
  void operator()(cudaGraphExec_t runnable) const { cudaGraphExecDestroy(runnable); }
};
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, GraphDeleter>;

class GraphRecording final : public Recording {
 public:
  GraphRecording(cudaGraph_t graph, cudaStream_t stream) : stream_(stream) {
    cudaGraphExec_t runnable = nullptr;
    cuda_check(cudaGraphInstantiate(&runnable, graph, 0), "cudaGraphInstantiate");
    runnable_.reset(runnable);
    cuda_check(cudaGraphUpload(runnable, stream_), "cudaGraphUpload");
  }
  ~GraphRecording() override { cudaStreamSynchronize(stream_); }
  void replay() override { cuda_check(cudaGraphLaunch(runnable_.get(), stream_), "cudaGraphLaunch"); }

 private:
  cudaStream_t stream_;
  std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, RunnableDeleter> runnable_;
};

/// Runs `work` while `stream` captures, and ends the capture in any case. Null where what it began with is lost.
cudaGraph_t captured(cudaStream_t stream, const std::function<void()>& work, std::exception_ptr& error) {
  try {
    work();
  } catch (...) {
    error = std::current_exception();
  }
  cudaGraph_t graph = nullptr;
  const cudaError_t status = cudaStreamEndCapture(stream, &graph);
  if (error) cudaGetLastError();  // of the capture that failed with the work
  if (!error) cuda_check(status, "cudaStreamEndCapture");
  return graph;
}

/// What a capturing stream would make its next node depend on.
struct CaptureFront {
  cudaGraph_t graph = nullptr;
  const cudaGraphNode_t* nodes = nullptr;
  const cudaGraphEdgeData* edges = nullptr;
  size_t count = 0;
};

CaptureFront front_of(cudaStream_t stream) {
  CaptureFront front;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cuda_check(cudaStreamGetCaptureInfo(stream, &status, nullptr, &front.graph, &front.nodes, &front.edges, &front.count),
             "cudaStreamGetCaptureInfo");
  check(status == cudaStreamCaptureStatusActive, "[recording] record_if outside of record");
  return front;
}

/// A second stream, on which the body of a condition is captured while the first one waits.
class SideStream {
 public:
  explicit SideStream(StreamState& state) : state_(state) {
    cudaStream_t side = nullptr;
    cuda_check(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking), "cudaStreamCreate");
    main_ = std::exchange(state_.stream, side);
  }
  ~SideStream() { cudaStreamDestroy(std::exchange(state_.stream, main_)); }
  SideStream(const SideStream&) = delete;
  SideStream& operator=(const SideStream&) = delete;

 private:
  StreamState& state_;
  cudaStream_t main_;
};

}  // namespace

std::unique_ptr<Recording> record(StreamState& state, const std::function<void()>& work) {
  cuda_check(cudaStreamBeginCapture(state.stream, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
  std::exception_ptr error;
  const Graph graph(captured(state.stream, work, error));
  if (error) std::rethrow_exception(error);
  return std::make_unique<GraphRecording>(graph.get(), state.stream);
}

void record_if(StreamState& state, const int32_t* flag, const std::function<void()>& work) {
  cudaGraphConditionalHandle handle{};
  cuda_check(cudaGraphConditionalHandleCreate(&handle, front_of(state.stream).graph, 0, cudaGraphCondAssignDefault),
             "cudaGraphConditionalHandleCreate");
  set_condition(state.stream, handle, flag);

  const CaptureFront front = front_of(state.stream);
  cudaGraphNodeParams params{};
  params.type = cudaGraphNodeTypeConditional;
  params.conditional.handle = handle;
  params.conditional.type = cudaGraphCondTypeIf;
  params.conditional.size = 1;
  cudaGraphNode_t node = nullptr;
  cuda_check(cudaGraphAddNode(&node, front.graph, front.nodes, front.edges, front.count, &params), "cudaGraphAddNode");
  cuda_check(cudaStreamUpdateCaptureDependencies(state.stream, &node, nullptr, 1, cudaStreamSetCaptureDependencies),
             "cudaStreamUpdateCaptureDependencies");

  const SideStream side(state);
  cuda_check(
      cudaStreamBeginCaptureToGraph(state.stream, params.conditional.phGraph_out[0], nullptr, nullptr, 0, cudaStreamCaptureModeRelaxed),
      "cudaStreamBeginCaptureToGraph");
  std::exception_ptr error;
  captured(state.stream, work, error);  // the body belongs to its node
  if (error) std::rethrow_exception(error);
}

}  // namespace ermoe::cuda
