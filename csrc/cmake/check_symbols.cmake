# cmake -DNM=nm -DSET=x86_64_v4 -DOBJECTS=a.o;b.o -P check_symbols.cmake
#
# Fails where an object of one instruction set defines a function under a name that another object may define
# too, because it does not mention the set's namespace: the linker would keep one of them for all.

foreach(object IN LISTS OBJECTS)
  execute_process(
    COMMAND "${NM}" --demangle --defined-only "${object}"
    OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  # What has a meaning in a CMake list.
  string(REPLACE ";" "," symbols "${symbols}")
  string(REGEX REPLACE "[][]" "|" symbols "${symbols}")
  string(REPLACE "\n" ";" symbols "${symbols}")
  foreach(symbol IN LISTS symbols)
    # W: weak function, T: global function, u: unique global.
    if(symbol MATCHES "^[0-9a-f]* *[WTu] " AND NOT symbol MATCHES "normwright::${SET}::")
      list(APPEND shared "${object}: ${symbol}")
    endif()
  endforeach()
endforeach()

if(shared)
  list(JOIN shared "\n  " shared)
  message(FATAL_ERROR "Functions of ${SET} that do not live in normwright::${SET}:\n  ${shared}")
endif()
