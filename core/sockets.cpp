#include "core/sockets.h"

#include "core/error.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

namespace ermoe {
namespace {

bool would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

/// An IPv4 or IPv6 address with a port, as the system's calls take it.
struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

std::optional<Address> parse_address(const std::string& text, int port) {
  Address address;
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  if (::inet_pton(AF_INET, text.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(static_cast<uint16_t>(port));
    std::memcpy(&address.storage, &v4, address.length = sizeof v4);
  } else if (::inet_pton(AF_INET6, text.c_str(), &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(static_cast<uint16_t>(port));
    std::memcpy(&address.storage, &v6, address.length = sizeof v6);
  } else {
    return std::nullopt;
  }
  return address;
}

/// Small records must leave at once.
void send_without_delay(const Socket& socket) {
  const int on = 1;
  ::setsockopt(socket.descriptor(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

bool wait_for(const Socket& socket, short events, double seconds) {
  pollfd entry{socket.descriptor(), events, 0};
  return ::poll(&entry, 1, static_cast<int>(std::ceil(std::max(0.0, seconds) * 1e3))) > 0;
}

/// Both families on one socket; IPv4 alone where the machine has no IPv6.
Socket bound_socket(int family) {
  Socket socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.open()) return {};
  const int off = 0;
  const std::optional<Address> any = parse_address(family == AF_INET6 ? "::" : "0.0.0.0", 0);
  if (family == AF_INET6 && ::setsockopt(socket.descriptor(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0) return {};
  if (::bind(socket.descriptor(), any->get(), any->length) != 0 || ::listen(socket.descriptor(), SOMAXCONN) != 0) return {};
  return socket;
}

}  // namespace

std::string host_name() {
  char name[256] = "unknown host";
  ::gethostname(name, sizeof(name) - 1);
  return name;
}

void Socket::close() {
  if (open()) ::close(std::exchange(descriptor_, -1));
}

void Socket::end_sending() {
  if (open()) ::shutdown(descriptor_, SHUT_WR);
}

std::optional<size_t> Socket::send(std::span<const std::byte> bytes) {
  const ssize_t taken = ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (taken >= 0) return static_cast<size_t>(taken);
  return would_block(errno) ? std::optional<size_t>(0) : std::nullopt;
}

std::optional<size_t> Socket::receive(std::span<std::byte> bytes) {
  const ssize_t came = ::recv(descriptor_, bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (came > 0) return static_cast<size_t>(came);
  return came < 0 && would_block(errno) ? std::optional<size_t>(0) : std::nullopt;
}

Socket Socket::accept() {
  Socket other(::accept4(descriptor_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (other.open()) send_without_delay(other);
  return other;
}

Listener listen_on_any_port() {
  Listener listener{bound_socket(AF_INET6), 0};
  if (!listener.socket.open()) listener.socket = bound_socket(AF_INET);
  check(listener.socket.open(), "[sockets] no TCP port can be listened on at {}: {}", host_name(), std::strerror(errno));
  sockaddr_storage own{};
  socklen_t length = sizeof own;
  const int status = ::getsockname(listener.socket.descriptor(), reinterpret_cast<sockaddr*>(&own), &length);
  check(status == 0, "[sockets] the port that {} listens on is unknown: {}", host_name(), std::strerror(errno));
  sockaddr_in v4{};  // the port stands at the same place for both families
  std::memcpy(&v4, &own, sizeof v4);
  listener.port = ntohs(v4.sin_port);
  return listener;
}

std::vector<std::string> own_addresses() {
  std::vector<std::string> v4, v6;
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return {};
  for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || (one->ifa_flags & IFF_UP) == 0 || (one->ifa_flags & IFF_LOOPBACK) != 0) continue;
    char text[INET6_ADDRSTRLEN] = "";
    if (one->ifa_addr->sa_family == AF_INET) {
      sockaddr_in address{};
      std::memcpy(&address, one->ifa_addr, sizeof address);
      if (::inet_ntop(AF_INET, &address.sin_addr, text, sizeof text) != nullptr) v4.emplace_back(text);
    } else if (one->ifa_addr->sa_family == AF_INET6) {
      sockaddr_in6 address{};
      std::memcpy(&address, one->ifa_addr, sizeof address);
      if (IN6_IS_ADDR_LINKLOCAL(&address.sin6_addr)) continue;  // means nothing without the other machine's interface
      if (::inet_ntop(AF_INET6, &address.sin6_addr, text, sizeof text) != nullptr) v6.emplace_back(text);
    }
  }
  ::freeifaddrs(all);
  v4.insert(v4.end(), v6.begin(), v6.end());
  return v4;
}

Socket connect_to(const std::string& address, int port, double seconds) {
  const std::optional<Address> to = parse_address(address, port);
  if (!to) return {};
  Socket socket(::socket(to->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.open()) return {};
  if (::connect(socket.descriptor(), to->get(), to->length) != 0) {
    if (errno != EINPROGRESS || !wait_for(socket, POLLOUT, seconds)) return {};
    int fault = 0;
    socklen_t length = sizeof fault;
    if (::getsockopt(socket.descriptor(), SOL_SOCKET, SO_ERROR, &fault, &length) != 0 || fault != 0) return {};
  }
  send_without_delay(socket);
  return socket;
}

bool wait_readable(const Socket& socket, double seconds) { return wait_for(socket, POLLIN, seconds); }

}  // namespace ermoe
