# Sets `result` to a hash of what this folder's library is made from, and has CMake run again when that changes.
# backends/native.py computes the same from the files that it finds: see there why.
function(normwright_stamp_of_sources result)
  file(GLOB names CONFIGURE_DEPENDS LIST_DIRECTORIES false RELATIVE "${CMAKE_CURRENT_SOURCE_DIR}"
       *.cpp *.h *.txt)
  list(FILTER names EXCLUDE REGEX "^[.]")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${names})
  set(listing "")
  foreach(name IN LISTS names)
    file(SHA256 "${CMAKE_CURRENT_SOURCE_DIR}/${name}" hash)
    string(APPEND listing "${name} ${hash}\n")
  endforeach()
  string(SHA256 hash "${listing}")
  set(${result} "${hash}" PARENT_SCOPE)
endfunction()
