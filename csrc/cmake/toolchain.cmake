# The compiler: whether there is one, and whether it knows the dialect and the instruction sets.
# Each function sets `result` to what is missing, in words for the person who installs; empty where nothing is.

include(CheckLanguage)

set(NORMWRIGHT_COMPILERS "GCC from version 12 or a recent Clang")

function(normwright_find_compiler result)
  set(${result} "" PARENT_SCOPE)
  if(NOT CMAKE_CXX_COMPILER)
    unset(CMAKE_CXX_COMPILER CACHE)  # one may have been installed since the last time
  endif()
  check_language(CXX)
  if(NOT CMAKE_CXX_COMPILER)
    set(${result} "no C++ compiler was found (${NORMWRIGHT_COMPILERS} would do)" PARENT_SCOPE)
  endif()
endfunction()

function(normwright_check_compiler result)
  include(CheckCXXCompilerFlag)
  include(CheckCXXSourceCompiles)

  set(${result} "" PARENT_SCOPE)
  set(found "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}")
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang" OR CMAKE_CXX_SIMULATE_ID STREQUAL "MSVC")
    set(${result} "they need ${NORMWRIGHT_COMPILERS}, and the compiler found is ${found}" PARENT_SCOPE)
    return()
  endif()
  if(NOT "cxx_std_20" IN_LIST CMAKE_CXX_COMPILE_FEATURES)
    set(${result} "${found} does not know C++20: ${NORMWRIGHT_COMPILERS} does" PARENT_SCOPE)
    return()
  endif()

  # Asked of the compiler, because CMAKE_SYSTEM_PROCESSOR speaks of the machine it runs on.
  check_cxx_source_compiles(
    "#ifndef __x86_64__\n#error\n#endif\nint main() { return 0; }" NORMWRIGHT_X86_64)
  check_cxx_source_compiles("int main() { return static_cast<int>(_Float16(0)); }" NORMWRIGHT_KNOWS_FLOAT16)
  if(NOT NORMWRIGHT_KNOWS_FLOAT16)
    set(${result} "${found} does not know _Float16: ${NORMWRIGHT_COMPILERS} does" PARENT_SCOPE)
  elseif(NORMWRIGHT_X86_64)
    check_cxx_compiler_flag("-march=x86-64-v4 -mprefer-vector-width=512" NORMWRIGHT_COMPILES_X86_64_V4)
    check_cxx_source_compiles(
      "int main() { return __builtin_cpu_supports(\"x86-64-v4\") ? 1 : 0; }" NORMWRIGHT_CHOOSES_X86_64_V4)
    if(NOT NORMWRIGHT_COMPILES_X86_64_V4 OR NOT NORMWRIGHT_CHOOSES_X86_64_V4)
      set(${result} "${found} does not know x86-64-v4: ${NORMWRIGHT_COMPILERS} does" PARENT_SCOPE)
    endif()
  endif()
endfunction()
