# The model that `quipu run tiny` runs without a download: written at build time by tools/placeholder.py, which needs
# numpy and the package's own GGUF writer, and installed into the package as quipu/data/tiny.gguf.
# PYTHONPATH is extended, not replaced: build front ends use it to hand over the isolated environment with numpy.

set(placeholder_model "${CMAKE_CURRENT_BINARY_DIR}/tiny.gguf")
file(GLOB_RECURSE placeholder_inputs CONFIGURE_DEPENDS
  "${CMAKE_CURRENT_SOURCE_DIR}/src/quipu/gguf/*.py"
  "${CMAKE_CURRENT_SOURCE_DIR}/src/quipu/quant/*.py")
list(APPEND placeholder_inputs
  "${CMAKE_CURRENT_SOURCE_DIR}/tools/placeholder.py"
  "${CMAKE_CURRENT_SOURCE_DIR}/src/quipu/bench/synthetic.py"
  "${CMAKE_CURRENT_SOURCE_DIR}/src/quipu/errors.py")

add_custom_command(
  OUTPUT "${placeholder_model}"
  COMMAND "${CMAKE_COMMAND}" -E env --modify "PYTHONPATH=path_list_prepend:${CMAKE_CURRENT_SOURCE_DIR}/src"
    "${Python_EXECUTABLE}" -B "${CMAKE_CURRENT_SOURCE_DIR}/tools/placeholder.py" "${placeholder_model}"
  DEPENDS ${placeholder_inputs}
  COMMENT "Writing the placeholder model"
  VERBATIM)
add_custom_target(placeholder_model ALL DEPENDS "${placeholder_model}")
install(FILES "${placeholder_model}" DESTINATION quipu/data)
