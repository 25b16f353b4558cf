// Whoever wants a file decoded leaves it at a desk. Two threads take there what waits, as one batch each: while the engines
// decode one, the pixels of the other travel. nvJPEG trusts its input in places, so it gets only files that are sound as far as
// their markers tell (data/plain_jpeg.h) and that it says itself its engines take. Read cuda/runtime/jpeg_engine.h first.
#include "cuda/runtime/jpeg_engine.h"

#include "core/error.h"

#if !defined(ERMOE_WITH_NVJPEG)

namespace ermoe::cuda {

FoundJpegEngine find_jpeg_engine(const GpuInfo&, std::unique_ptr<MemorySource>) { return {nullptr, "this build has no nvJPEG"}; }

}  // namespace ermoe::cuda

#else

#include "cuda/runtime/check.h"
#include "cuda/runtime/device.h"

#include <nvjpeg.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

namespace ermoe::cuda {
namespace {

constexpr size_t batch_bytes = size_t{64} << 20;  // of a batch, in the GPU's memory; a larger picture is the processor's
constexpr size_t most_files = 64;                 // of a batch
constexpr size_t held_bytes = size_t{512} << 20;  // of pixels that are made or wait to be taken
constexpr size_t alignment = 256;                 // of a picture's first byte
constexpr int64_t most_refusals = 1000;           // one after the other: then it is not the files
constexpr std::chrono::seconds patience{20};      // with a batch, which takes milliseconds

const char* meaning(nvjpegStatus_t status) {
  switch (status) {
    case NVJPEG_STATUS_NOT_INITIALIZED: return "not initialised";
    case NVJPEG_STATUS_INVALID_PARAMETER: return "invalid parameter";
    case NVJPEG_STATUS_BAD_JPEG: return "bad JPEG";
    case NVJPEG_STATUS_JPEG_NOT_SUPPORTED: return "JPEG not supported";
    case NVJPEG_STATUS_ALLOCATOR_FAILURE: return "out of memory";
    case NVJPEG_STATUS_EXECUTION_FAILED: return "execution failed";
    case NVJPEG_STATUS_ARCH_MISMATCH: return "not for this GPU";
    case NVJPEG_STATUS_INTERNAL_ERROR: return "internal error";
    case NVJPEG_STATUS_IMPLEMENTATION_NOT_SUPPORTED: return "not supported here";
    default: return "unknown error";
  }
}

void jpeg_check(nvjpegStatus_t status, const char* api) {
  if (status != NVJPEG_STATUS_SUCCESS) fail("[cuda] {}: {} ({})", api, meaning(status), static_cast<int>(status));
}

size_t aligned(size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

/// One file that somebody waits for. Without pixels if nothing else is said until it goes.
class Request {
 public:
  Request(std::shared_ptr<const std::string> bytes, int64_t rows, int64_t columns)
      : file(std::move(bytes)), height(rows), width(columns), answer_(std::in_place) {}
  Request(Request&& from) noexcept
      : file(std::move(from.file)), height(from.height), width(from.width), room(std::move(from.room)), answer_(std::move(from.answer_)) {
    from.answer_.reset();
  }
  Request& operator=(Request&&) = delete;
  ~Request() { answer({}); }

  std::future<JpegPixels> future() { return answer_->get_future(); }
  void answer(JpegPixels pixels) {
    if (answer_) answer_->set_value(std::move(pixels));
    answer_.reset();
  }
  size_t bytes() const { return static_cast<size_t>(height * width * 3); }
  /// Of the GPU's memory, where the file goes too.
  size_t cost() const { return aligned(bytes()) + file->size(); }
  const unsigned char* data() const { return reinterpret_cast<const unsigned char*>(file->data()); }

  std::shared_ptr<const std::string> file;
  int64_t height, width;
  std::shared_ptr<void> room;  // its share of `held_bytes`, from when it was taken up until its pixels are gone

 private:
  std::optional<std::promise<JpegPixels> > answer_;
};

/// Where files wait, and who keeps the memory of pixels: it lives as long as any of them.
class Desk : public std::enable_shared_from_this<Desk> {
 public:
  explicit Desk(std::unique_ptr<MemorySource> page_locked) : pixels_(std::move(page_locked)) {}

  void leave(Request request) {
    {
      const std::lock_guard lock(mutex_);
      if (closed_) return;
      waiting_.push_back(std::move(request));
    }
    changed_.notify_one();
  }

  /// The oldest files, as many as a batch may have and as there is room for; none once the desk is closed.
  std::vector<Request> take() {
    std::vector<Request> batch;
    batch.reserve(most_files);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return closed_ || (!waiting_.empty() && has_room()); });
    for (size_t bytes = 0; !closed_ && !waiting_.empty() && batch.size() < most_files && has_room(); waiting_.pop_front()) {
      bytes += waiting_.front().cost();
      if (bytes > batch_bytes) break;
      waiting_.front().room = std::make_shared<Room>(shared_from_this(), waiting_.front().bytes());
      batch.push_back(std::move(waiting_.front()));
    }
    return batch;
  }

  /// Page-locked memory for the pixels of a file that was taken up.
  std::shared_ptr<uint8_t> memory_for(const Request& request) {
    const Block block = pixels_.allocate(request.bytes(), "decoded JPEG files");
    return {static_cast<uint8_t*>(block.data),
            [self = shared_from_this(), block, room = request.room](uint8_t*) { self->pixels_.release(block); }};
  }

  /// Nothing is decoded any more; whoever waits is told.
  void close(const std::string& fault) {
    std::deque<Request> unanswered;
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
      if (fault_.empty()) fault_ = fault;
      unanswered.swap(waiting_);
    }
    changed_.notify_all();
  }

  std::string take_fault() {
    const std::lock_guard lock(mutex_);
    if (told_) return {};
    told_ = !fault_.empty();
    return fault_;
  }

 private:
  bool has_room() const { return held_ == 0 || held_ + waiting_.front().bytes() <= held_bytes; }

  /// What a file's pixels take of the bound, until nobody has them any more.
  struct Room {
    std::shared_ptr<Desk> desk;
    size_t bytes;
    Room(std::shared_ptr<Desk> d, size_t b) : desk(std::move(d)), bytes(b) { desk->held_ += bytes; }
    Room(const Room&) = delete;
    Room& operator=(const Room&) = delete;
    ~Room() {
      {
        const std::lock_guard lock(desk->mutex_);
        desk->held_ -= bytes;
      }
      desk->changed_.notify_one();
    }
  };

  CachingAllocator pixels_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<Request> waiting_;
  size_t held_ = 0;
  bool closed_ = false, told_ = false;
  std::string fault_;
};

/// The library's handle, which several threads may use.
class Library {
 public:
  Library() {
    // Chroma is smoothed as libjpeg does it, and what departs from the standard is refused.
    constexpr unsigned flags = NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION | NVJPEG_FLAGS_BITSTREAM_STRICT;
    jpeg_check(nvjpegCreateEx(NVJPEG_BACKEND_HARDWARE, nullptr, nullptr, flags, &handle_), "nvjpegCreateEx");
    unsigned cores = 0;
    if (nvjpegGetHardwareDecoderInfo(handle_, &engines_, &cores) != NVJPEG_STATUS_SUCCESS) engines_ = 0;
    engines_ *= cores;
  }
  ~Library() {
    if (!kept_) nvjpegDestroy(handle_);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  nvjpegHandle_t handle() const { return handle_; }
  unsigned engines() const { return engines_; }
  /// A GPU hangs over something that belongs to the library: it is not destroyed.
  void keep() { kept_ = true; }

 private:
  std::atomic<bool> kept_ = false;
  nvjpegHandle_t handle_ = nullptr;
  unsigned engines_ = 0;  // the handle is given out on GPUs without any as well
};

/// One stream of batches, with what nvJPEG keeps for one. For the thread that runs it.
class Line {
 public:
  Line(Library& library, Desk& desk) : owner_(library), library_(library.handle()), desk_(desk) {}
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;
  ~Line() {
    if (stuck_) owner_.keep();
    if (stuck_) return;  // the GPU may still write where it was told to
    if (stream_ != nullptr) cudaStreamSynchronize(stream_);
    if (header_ != nullptr) nvjpegJpegStreamDestroy(header_);
    if (state_ != nullptr) nvjpegJpegStateDestroy(state_);
    if (done_ != nullptr) cudaEventDestroy(done_);
    if (pixels_ != nullptr) cudaFree(pixels_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  void open() {
    cuda_check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    cuda_check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreate");
    cuda_check(cudaMalloc(reinterpret_cast<void**>(&pixels_), batch_bytes), "cudaMalloc");
    jpeg_check(nvjpegJpegStateCreate(library_, &state_), "nvjpegJpegStateCreate");
    jpeg_check(nvjpegJpegStreamCreate(library_, &header_), "nvjpegJpegStreamCreate");
  }

  /// Answers every request. Throws `Error` where it is not the files' fault that it cannot.
  void decode(std::vector<Request> batch) {
    std::vector<Request> taken;
    for (Request& request : batch) {
      if (takes(request)) taken.push_back(std::move(request));
      request.answer({});
    }
    decode_taken(taken);
  }

 private:
  /// One file can spoil a batch: it is looked for by halves.
  void decode_taken(std::span<Request> batch) {
    if (batch.empty() || decode_together(batch)) return;
    if (batch.size() == 1) return batch[0].answer({});
    decode_taken(batch.first(batch.size() / 2));
    decode_taken(batch.last(batch.size() - batch.size() / 2));
  }

  /// The library must read the same size as we did: that is how much memory the picture gets.
  bool takes(const Request& request) {
    unsigned width = 0, height = 0;
    int unsupported = 1;
    const bool read = nvjpegJpegStreamParseHeader(library_, request.data(), request.file->size(), header_) == NVJPEG_STATUS_SUCCESS &&
                      nvjpegJpegStreamGetFrameDimensions(header_, &width, &height) == NVJPEG_STATUS_SUCCESS && width == request.width &&
                      height == request.height && nvjpegDecodeBatchedSupported(library_, header_, &unsupported) == NVJPEG_STATUS_SUCCESS;
    return read && unsupported == 0;
  }

  bool decode_together(std::span<Request> batch) {
    std::vector<const unsigned char*> files;
    std::vector<size_t> sizes;
    std::vector<nvjpegImage_t> pictures;
    size_t used = 0;
    for (const Request& request : batch) {
      nvjpegImage_t& picture = pictures.emplace_back();
      picture.channel[0] = pixels_ + used;
      picture.pitch[0] = static_cast<size_t>(request.width) * 3;
      files.push_back(request.data());
      sizes.push_back(request.file->size());
      used += aligned(request.bytes());
    }
    const auto count = static_cast<int>(batch.size());
    if (count != prepared_for_)
      jpeg_check(nvjpegDecodeBatchedInitialize(library_, state_, count, 1, NVJPEG_OUTPUT_RGBI), "nvjpegDecodeBatchedInitialize");
    prepared_for_ = count;
    const nvjpegStatus_t status = nvjpegDecodeBatched(library_, state_, files.data(), sizes.data(), pictures.data(), stream_);
    if (status != NVJPEG_STATUS_SUCCESS) {
      refused(status);
      return false;
    }
    hand_over(batch, pictures);
    return true;
  }

  void hand_over(std::span<Request> batch, const std::vector<nvjpegImage_t>& pictures) {
    std::vector<std::shared_ptr<uint8_t> > pixels;
    for (const Request& request : batch) pixels.push_back(desk_.memory_for(request));  // all of it before the first copy begins
    try {
      for (size_t i = 0; i < batch.size(); ++i)
        cuda_check(cudaMemcpyAsync(pixels[i].get(), pictures[i].channel[0], batch[i].bytes(), cudaMemcpyDeviceToHost, stream_), "download");
      wait();
    } catch (...) {  // the GPU may still write there
      if (stuck_)
        written_for_ever_ = std::make_unique<std::vector<std::shared_ptr<uint8_t> > >(std::move(pixels)).release();
      else
        cudaStreamSynchronize(stream_);
      throw;
    }
    refusals_ = 0;
    for (size_t i = 0; i < batch.size(); ++i) batch[i].answer({batch[i].height, batch[i].width, std::move(pixels[i])});
  }

  /// What was begun of the batch must end before its memory is used again.
  void refused(nvjpegStatus_t status) {
    wait();
    prepared_for_ = 0;
    if (status == NVJPEG_STATUS_ALLOCATOR_FAILURE || ++refusals_ > most_refusals) jpeg_check(status, "nvjpegDecodeBatched");
  }

  /// By asking now and then: a GPU that hangs over a file would keep any other way of waiting for ever.
  void wait() {
    cuda_check(cudaEventRecord(done_, stream_), "cudaEventRecord");
    const auto end = std::chrono::steady_clock::now() + patience;
    for (cudaError_t status; (status = cudaEventQuery(done_)) != cudaSuccess; std::this_thread::sleep_for(std::chrono::microseconds(50))) {
      if (status != cudaErrorNotReady) cuda_check(status, "nvJPEG");
      cudaGetLastError();
      stuck_ = std::chrono::steady_clock::now() > end;
      if (stuck_) fail("[cuda] nvJPEG: a batch was not done after {} s", patience.count());
    }
  }

  Library& owner_;
  nvjpegHandle_t library_;
  Desk& desk_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t done_ = nullptr;
  uint8_t* pixels_ = nullptr;  // (batch_bytes), on the GPU
  nvjpegJpegState_t state_ = nullptr;
  nvjpegJpegStream_t header_ = nullptr;
  int prepared_for_ = 0;  // files of a batch
  int64_t refusals_ = 0;  // since the last batch that was decoded
  bool stuck_ = false;
  const void* written_for_ever_ = nullptr;  // pixels that a stuck GPU may write: never given back
};

class NvjpegEngine final : public JpegEngine {
 public:
  NvjpegEngine(int gpu, std::unique_ptr<Library> library, std::unique_ptr<MemorySource> page_locked)
      : gpu_(gpu), library_(std::move(library)), desk_(std::make_shared<Desk>(std::move(page_locked))) {
    for (std::unique_ptr<Line>& line : lines_) {
      line = std::make_unique<Line>(*library_, *desk_);
      line->open();
    }
    try {
      for (size_t t = 0; t < lines_.size(); ++t) threads_[t] = std::jthread([this, t] { run(*lines_[t]); });
    } catch (...) {
      desk_->close("");  // or the first thread would wait, and be waited for
      throw;
    }
  }
  ~NvjpegEngine() override { desk_->close(""); }

  std::future<JpegPixels> start(std::shared_ptr<const std::string> file, int64_t height, int64_t width) override {
    Request request(std::move(file), height, width);
    std::future<JpegPixels> answer = request.future();
    if (request.cost() <= batch_bytes) desk_->leave(std::move(request));
    return answer;
  }
  std::string take_fault() override { return desk_->take_fault(); }
  std::string name() const override { return fmt::format("nvJPEG, {} engine{}", library_->engines(), library_->engines() == 1 ? "" : "s"); }

 private:
  void run(Line& line) {
    try {
      const CurrentDevice current(gpu_);
      for (std::vector<Request> batch = desk_->take(); !batch.empty(); batch = desk_->take()) line.decode(std::move(batch));
    } catch (const std::exception& fault) {
      desk_->close(fault.what());
    }
  }

  int gpu_;
  std::unique_ptr<Library> library_;
  std::shared_ptr<Desk> desk_;
  std::array<std::unique_ptr<Line>, 2> lines_;
  std::array<std::jthread, 2> threads_;  // last, so that they are joined before the rest goes
};

}  // namespace

FoundJpegEngine find_jpeg_engine(const GpuInfo& gpu, std::unique_ptr<MemorySource> page_locked) {
  try {
    const CurrentDevice current(gpu.index);
    auto library = std::make_unique<Library>();
    if (library->engines() == 0) return {nullptr, fmt::format("{} has no engine for JPEG files", gpu.name)};
    return {std::make_unique<NvjpegEngine>(gpu.index, std::move(library), std::move(page_locked)), {}};
  } catch (const std::exception& fault) {
    return {nullptr, fault.what()};
  }
}

}  // namespace ermoe::cuda

#endif
