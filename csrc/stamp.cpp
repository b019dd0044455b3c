// Which sources the library was built from, for backends/native.py, which looks for these bytes in the file.

namespace normwright {

__attribute__((used)) constexpr char kStamp[] = "normwright sources " NORMWRIGHT_STAMP;

}  // namespace normwright
