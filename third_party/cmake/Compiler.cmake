# How everything is compiled: warnings, instruction set, sanitizers, compiler cache.
find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

add_library(ermoe_flags INTERFACE)
target_compile_options(ermoe_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wnon-virtual-dtor>
  # Lets loops over floats vectorise; NaN and infinity keep their meaning, unlike under -ffast-math.
  $<$<COMPILE_LANGUAGE:CXX>:-fno-math-errno -fno-trapping-math>)
if(ERMOE_WERROR)
  target_compile_options(ermoe_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(ERMOE_NATIVE)
  target_compile_options(ermoe_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=native>)
endif()
if(ERMOE_SANITIZE)
  target_compile_options(ermoe_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1>)
  target_link_options(ermoe_flags INTERFACE -fsanitize=address,undefined)
endif()
# Under the sanitizers half of the time goes into compiling: less optimisation there, and assertions of the library on.
if(ERMOE_SANITIZE)
  set(CMAKE_CXX_FLAGS_RELEASE "-O1 -D_GLIBCXX_ASSERTIONS")
else()
  set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
endif()
