// Memory whose edges are watched.

#pragma once

#include <cstddef>
#include <cstdint>

namespace normwright::fuzz {

// Ends `gap` bytes before a page that may not be touched, so that whatever instruction strays past it is
// caught by the processor; the gap and what lies before are filled with a pattern, which must be found intact
// afterwards, and poisoned under AddressSanitizer. A gap of a few elements moves the beginning as well, which
// puts every alignment to the test.
class Memory {
 public:
  Memory() = default;
  Memory(std::size_t bytes, std::size_t gap);
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;
  ~Memory();

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  bool edges_intact() const;

 private:
  std::byte* map_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t map_bytes_ = 0, bytes_ = 0, gap_ = 0;
};

// What is printed when a sanitizer or the processor ends the program.
void say_at_death(const char* text);

}  // namespace normwright::fuzz
