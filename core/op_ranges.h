// Which op a device's work belongs to, told to whoever listens while it is queued: kernels of libraries have names that say
// nothing. Nobody listens but a profiler, and then for one step. Read next: core/context.h, cuda/factory.h.
#pragma once

#include <source_location>
#include <string_view>

namespace ermoe {

/// Hears of ops as they start and end on the host; they nest.
class OpListener {
 public:
  virtual ~OpListener() = default;
  virtual void enter(std::string_view op) = 0;
  virtual void leave() = 0;
};

/// Tells `listener`, which may be null, of one op for as long as this lives.
class OpRange {
 public:
  OpRange(OpListener* listener, std::string_view op) : listener_(listener) {
    if (listener_ != nullptr) listener_->enter(op);
  }
  /// The op is named as the file that it stands in: "ops/linear.cpp" is "linear".
  OpRange(OpListener* listener, const std::source_location& where) : listener_(listener) {
    if (listener_ != nullptr) listener_->enter(stem(where.file_name()));
  }
  ~OpRange() {
    if (listener_ != nullptr) listener_->leave();
  }
  OpRange(const OpRange&) = delete;
  OpRange& operator=(const OpRange&) = delete;

 private:
  static std::string_view stem(std::string_view file) {
    file.remove_prefix(file.find_last_of('/') + 1);  // npos + 1 is 0
    return file.substr(0, file.find('.'));
  }

  OpListener* listener_;
};

}  // namespace ermoe
