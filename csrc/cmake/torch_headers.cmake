# PyTorch's headers (torch/csrc/stable, torch/headeronly) and libtorch_cpu, from the PyTorch of the Python that
# normwright is installed for. Nothing that they say depends on its version, which may be any from 2.10 on: the
# library is built for the stable ABI of 2.10.
#
# pip builds in an isolated environment, which does not hold PyTorch and should not download it for its headers.
# So the folder where that Python keeps its packages is looked into as well; isolation leaves it readable.

set(TORCH_INCLUDE_DIR "" CACHE PATH "PyTorch's include folder, where Python cannot find it")

set(NORMWRIGHT_TORCH_FOLDERS [=[
import importlib.util, pathlib, sysconfig
spec = importlib.util.find_spec("torch")
folders = list(spec.submodule_search_locations or []) if spec else []
folders += [str(pathlib.Path(sysconfig.get_path(name), "torch")) for name in ("platlib", "purelib")]
print(";".join(str(pathlib.Path(folder, "include")) for folder in folders))
]=])

# Sets `result` to what is missing, and otherwise defines the target normwright_torch.
function(normwright_find_torch result)
  set(${result} "" PARENT_SCOPE)
  set(candidates "${TORCH_INCLUDE_DIR}")
  if(NOT candidates)
    find_package(Python COMPONENTS Interpreter REQUIRED)
    execute_process(
      COMMAND "${Python_EXECUTABLE}" -c "${NORMWRIGHT_TORCH_FOLDERS}"
      OUTPUT_VARIABLE candidates OUTPUT_STRIP_TRAILING_WHITESPACE)
  endif()

  foreach(include IN LISTS candidates)
    if(NOT EXISTS "${include}/torch/headeronly/version.h")
      continue()
    endif()
    file(STRINGS "${include}/torch/headeronly/version.h" lines REGEX "define TORCH_VERSION_(MAJOR|MINOR) ")
    string(REGEX REPLACE "[^0-9]+([0-9]+)[^0-9]+([0-9]+).*" "\\1.\\2" version "${lines}")
    if(version VERSION_LESS 2.10)
      continue()
    endif()
    find_library(torch_cpu torch_cpu PATHS "${include}/../lib" NO_DEFAULT_PATH NO_CACHE REQUIRED)
    add_library(normwright_torch INTERFACE)
    target_include_directories(normwright_torch SYSTEM INTERFACE "${include}")
    target_compile_definitions(normwright_torch INTERFACE TORCH_TARGET_VERSION=0x020a000000000000)
    target_compile_options(normwright_torch INTERFACE "-ffile-prefix-map=${include}/=")
    target_link_libraries(normwright_torch INTERFACE "${torch_cpu}")
    message(STATUS "PyTorch ${version}: ${include}")
    return()
  endforeach()
  string(CONCAT missing
    "PyTorch 2.10 or later was not there when normwright was installed. With PyTorch in place, install "
    "normwright again with pip's --force-reinstall --no-deps --no-cache-dir")
  set(${result} "${missing}" PARENT_SCOPE)
endfunction()
