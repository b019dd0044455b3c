#include "memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <new>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#define NORMWRIGHT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NORMWRIGHT_ASAN 1
#endif
#endif

#if defined(NORMWRIGHT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace normwright::fuzz {
namespace {

constexpr auto kPattern = std::byte{0xa5};
constexpr std::size_t kEdge = 128;

const char* death_text = "";

void say(const char* text) {
  const auto written = write(STDERR_FILENO, text, std::strlen(text));
  static_cast<void>(written);
}

void speak() { say(death_text); }

#if !defined(NORMWRIGHT_ASAN)
void speak_and_die(int signal_number) {
  speak();
  const bool memory = signal_number == SIGSEGV || signal_number == SIGBUS;
  say(memory ? "touched memory that is not its own, or not aligned\n" : "killed by the processor\n");
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}
#endif

}  // namespace

#if defined(NORMWRIGHT_ASAN)
// UndefinedBehaviorSanitizer calls this before it says what it found; it does not know AddressSanitizer's callback.
extern "C" __attribute__((visibility("default"))) void __ubsan_on_report() { speak(); }
#endif

void say_at_death(const char* text) {
  death_text = text;
#if defined(NORMWRIGHT_ASAN)
  __sanitizer_set_death_callback(speak);
#else
  for (int signal_number : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) signal(signal_number, speak_and_die);
#endif
}

Memory::Memory(std::size_t bytes, std::size_t gap) : bytes_(bytes), gap_(gap) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t used = (kEdge + bytes + gap + page - 1) / page * page;
  map_bytes_ = used + page;
  void* const map = mmap(nullptr, map_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED || mprotect(static_cast<std::byte*>(map) + used, page, PROT_NONE) != 0) throw std::bad_alloc();
  map_ = static_cast<std::byte*>(map);
  data_ = map_ + used - gap - bytes;
  std::memset(data_ - kEdge, static_cast<int>(kPattern), kEdge + bytes + gap);
#if defined(NORMWRIGHT_ASAN)
  __asan_poison_memory_region(data_ - kEdge, kEdge);
  __asan_poison_memory_region(data_ + bytes_, gap_);
#endif
}

Memory::Memory(Memory&& other) noexcept { *this = std::move(other); }

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(map_, other.map_);
  std::swap(data_, other.data_);
  std::swap(map_bytes_, other.map_bytes_);
  std::swap(bytes_, other.bytes_);
  std::swap(gap_, other.gap_);
  return *this;
}

Memory::~Memory() {
  if (!map_) return;
#if defined(NORMWRIGHT_ASAN)
  __asan_unpoison_memory_region(map_, map_bytes_);
#endif
  munmap(map_, map_bytes_);
}

bool Memory::edges_intact() const {
  if (!map_) return true;
#if defined(NORMWRIGHT_ASAN)
  __asan_unpoison_memory_region(map_, map_bytes_);
#endif
  for (const std::byte* p = data_ - kEdge; p < data_; ++p) {
    if (*p != kPattern) return false;
  }
  for (const std::byte* p = data_ + bytes_; p < data_ + bytes_ + gap_; ++p) {
    if (*p != kPattern) return false;
  }
  return true;
}

}  // namespace normwright::fuzz
