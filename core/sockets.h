// TCP between the processes of one run, as core/rank_watch.h needs it: sockets that never block, calls that end in the time
// they are given, no SIGPIPE, nothing that a child process inherits.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace ermoe {

/// The name of this machine, as other machines of the run should read it.
std::string host_name();

/// Owns one socket's descriptor, or none.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  ~Socket() { close(); }
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    if (this != &other) {
      close();
      descriptor_ = std::exchange(other.descriptor_, -1);
    }
    return *this;
  }

  bool open() const { return descriptor_ >= 0; }
  int descriptor() const { return descriptor_; }
  void close();
  /// The other end reads to the end of what was sent, and may go on sending.
  void end_sending();

  /// How many bytes the system took now, maybe 0; nothing where the other end is gone.
  std::optional<size_t> send(std::span<const std::byte> bytes);
  /// How many bytes have come, maybe 0; nothing where the other end is gone and all it sent was read.
  std::optional<size_t> receive(std::span<std::byte> bytes);
  /// The next connection that waits at a listening socket, or none.
  Socket accept();

 private:
  int descriptor_ = -1;
};

/// A socket that listens on every interface, and the port that the system chose for it. Throws `Error` where none can be had.
struct Listener {
  Socket socket;
  int port = 0;
};
Listener listen_on_any_port();

/// Addresses of this machine's interfaces that are up, IPv4 first; neither loopback nor link-local ones.
std::vector<std::string> own_addresses();

/// Connects to an IPv4 or IPv6 address; the socket is not open where that failed or took longer than `seconds`.
Socket connect_to(const std::string& address, int port, double seconds);

/// Waits until the socket can be read or its other end is gone, at most `seconds`.
bool wait_readable(const Socket& socket, double seconds);

}  // namespace ermoe
