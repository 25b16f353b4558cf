// How long OpenMP's threads spin before they sleep. Read next: tools/engine.h.
#pragma once

namespace ermoe {

/// Between two loops of a step lie microseconds. Threads that sleep at once lose them to the system's waking up, and threads
/// that spin as long as GNU's OpenMP lets them take the cores from whoever else runs on the machine. So a program starts
/// itself again with a spin of some ten microseconds, unless OMP_WAIT_POLICY or GOMP_SPINCOUNT say what the user wants:
/// the library reads them once, when it is loaded. Returns where that is settled, or where it cannot be done.
void settle_thread_waiting(char** argv);

}  // namespace ermoe
